/* The demo: one image, its map, a question, and the reply as it arrives, with and without the crayon prompt. */

let image = null, busy = false;
const file = h("input", {type: "file", accept: "image/*", id: "file", onchange: () => file.files[0] && send(file.files[0])});
const shown = h("img", {alt: "the image"});
const canvas = h("canvas");
const stage = h("div", {class: "stage"}, shown, canvas);
const legend = h("p", {class: "soft", text: "Choose an image, or drop one anywhere on the page."});
const seeMap = h("input", {type: "checkbox", id: "map", checked: "", onchange: () => paint()});
const crayon = h("input", {type: "checkbox", id: "crayon", checked: ""});
const temperature = h("input", {type: "number", id: "temperature", min: "0", step: "0.1", value: "0"});
const question = h("input", {id: "question", placeholder: "What is in the image?", onkeydown: (event) => {
  if (event.key === "Enter") ask();
}});
const button = h("button", {text: "Ask", id: "ask", onclick: () => ask()});
const replies = h("dl", {id: "replies"});

function paint() {
  stage.hidden = !image;
  canvas.hidden = !seeMap.checked || !image;
  if (!canvas.hidden) drawMap(canvas, image.map, shown.clientWidth || 330, shown.clientHeight || 330);
}

async function failure(answer) {
  return new Error((await answer.text()) || answer.statusText);
}

async function send(chosen) {
  legend.textContent = "reading the image ...";
  image = null;
  paint();
  try {
    const answer = await fetch("image", {method: "POST", body: chosen});
    if (!answer.ok) throw await failure(answer);
    image = await answer.json();
    if (shown.src) URL.revokeObjectURL(shown.src);
    shown.src = URL.createObjectURL(chosen);
    legend.textContent = `map: ${words(image.map) || "no objects"}`;
    replies.replaceChildren();
  } catch (error) {
    legend.textContent = error.message;
  }
}

async function ask() {
  if (busy || !image || !question.value.trim()) return;
  busy = button.disabled = true;
  const cell = h("dd", {class: "wide"});
  replies.prepend(h("dt", {text: crayon.checked ? "with map" : "without map"}), h("dd", {text: question.value}),
    h("dt", {text: "reply"}), cell);
  while (replies.childElementCount > 40) replies.lastChild.remove();
  try {
    const body = JSON.stringify({image: image.id, question: question.value, crayon: crayon.checked,
      temperature: Number(temperature.value)});
    const answer = await fetch("ask", {method: "POST", body});
    if (!answer.ok) throw await failure(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      cell.textContent += value;
    }
    cell.id = "last";
  } catch (error) {
    cell.textContent += `  [${error.message}]`;
    cell.className = "wide error";
  } finally {
    busy = button.disabled = false;
  }
}

document.body.append(
  h("header", {}, h("div", {}, h("h1", {text: "CoLLaVO"}), h("p", {class: "soft", text: document.title}))),
  h("nav", {}, file, h("label", {for: "map", text: "show map"}), seeMap,
    h("label", {for: "crayon", text: "crayon prompt"}), crayon,
    h("label", {for: "temperature", text: "temperature"}), temperature),
  h("section", {class: "detail"}, h("figure", {}, stage, legend), h("div", {class: "talk"}, question, button, replies)));
shown.addEventListener("load", paint);
paint();
window.addEventListener("resize", paint);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
});
