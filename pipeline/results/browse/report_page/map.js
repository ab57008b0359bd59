"use strict";
/* What both pages need: elements, and a panoptic map over its image, on a canvas: colours by class, boxes, and names
   with numbers. */

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function words(map) {
  const counts = new Map();
  for (const [name] of map.objects) counts.set(name, (counts.get(name) || 0) + 1);
  return [...counts].map(([name, number]) => `${number} ${name}`).join(", ");
}

function hue(name) {
  let sum = 7;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 100003;
  return (sum * 0.618034 % 1) * 360;
}

function drawMap(canvas, map, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  let place = 0;
  for (let run = 0; run < map.runs.length; run += 2) {
    const object = map.runs[run] ? map.objects[map.runs[run] - 1] : null;
    for (let step = 0; step < map.runs[run + 1]; step++, place++) {
      if (!object) continue;
      pen.fillStyle = `hsla(${hue(object[0])}, 75%, ${42 + 12 * (object[1] % 4)}%, 0.45)`;
      const [row, column] = [Math.floor(place / map.side), place % map.side];
      const [left, right] = [column, column + 1].map((at) => Math.round(at * width / map.side));
      const [top, bottom] = [row, row + 1].map((at) => Math.round(at * height / map.side));
      pen.fillRect(left, top, right - left, bottom - top);
    }
  }
  pen.font = "12px sans-serif";
  pen.textAlign = "center";
  pen.lineWidth = 3;
  for (const [name, number, [left, top, right, bottom]] of map.objects) {
    pen.strokeStyle = `hsl(${hue(name)}, 80%, 35%)`;
    pen.lineWidth = 1.5;
    pen.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
    pen.lineWidth = 3;
    pen.strokeStyle = "black";
    pen.fillStyle = "white";
    const at = [(left + right) / 2 * width, Math.min((top + bottom) / 2 * height + 4, height - 4)];
    pen.strokeText(`#${number} ${name}`, ...at);
    pen.fillText(`#${number} ${name}`, ...at);
  }
}
