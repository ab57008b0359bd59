/* The report of one benchmark. All data stands in the page as JSON; text reaches the page through textContent alone.
   The list is virtual: a fixed pool of rows is moved and refilled, so that 12,000 records need no more nodes than 12. */

const ROW_HEIGHT = 72, POOL = 9, METRICS_SHOWN = 4, GROUPS_SHOWN = 10, ROW_TEXT = 300, IMAGE_WIDTH = 330, IMAGE_HEIGHT = 380;
const data = JSON.parse(document.getElementById("data").textContent);
const F = Object.fromEntries(data.fields.map((name, index) => [name, index]));
const R = Object.fromEntries(data.reply_fields.map((name, index) => [name, index]));
const both = data.runs.length > 1;

/* Control characters and directional marks would hide or reorder text: they are shown as escapes. */
const visible = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
  (mark) => "\\u" + mark.charCodeAt(0).toString(16).padStart(4, "0"));
const inRow = (text) => visible(text.slice(0, ROW_TEXT));

/* ---- what a record holds */

const verdict = (reply) => data.verdicts[reply[R.verdict]] || "";
const promptOf = (reply) => reply[R.prompt] === null ? "" : data.prompt[0] + reply[R.prompt] + data.prompt[1];
const shownReply = (reply) => reply === null ? "(not in this run)"
  : reply[R.error] !== null ? "(no reply) " + reply[R.error] : reply[R.text] ?? "(no reply)";
const credit = (reply) => reply === null ? null : reply[R.score];

function imageAddress(record) {
  const image = record[F.image] === null ? null : data.images[record[F.image]];
  if (!image) return "";
  return image.inside || (/^[0-9a-f]{16}\.jpg$/.test(image.file) ? "thumbnails/" + image.file : "");
}

/* ---- filters */

const FILTERS = [["all", "all records"], ["wrong", "wrong"], ["partly right", "partly right"],
  ["unreadable", "unreadable"], ["error", "error"], ["unscored", "unscored or withheld"],
  ["unfinished", "unfinished"], ["right", "right"]];
if (both) FILTERS.push(["changed", "changed"], ["better", "second is better"], ["worse", "second is worse"]);

function passes(record, kind) {
  const [first, second] = [record[F.first], record[F.second]];
  const any = (test) => (first !== null && test(first)) || (both && second !== null && test(second));
  switch (kind) {
    case "all": return true;
    case "unfinished": return any((reply) => reply[R.finished] === false);
    case "unscored": return any((reply) => ["unscored", "withheld"].includes(verdict(reply)));
    case "changed": return (first && first[R.text]) !== (second && second[R.text]) || credit(first) !== credit(second);
    case "better": return credit(first) !== null && credit(second) !== null && credit(second) > credit(first);
    case "worse": return credit(first) !== null && credit(second) !== null && credit(second) < credit(first);
    default: return any((reply) => verdict(reply) === kind);
  }
}

const haystacks = new Map();
function haystack(index) {
  if (!haystacks.has(index)) {
    const record = data.records[index];
    const replies = [record[F.first], record[F.second]].filter(Boolean).flatMap((r) => [r[R.text], r[R.extracted]]);
    haystacks.set(index, [record[F.id], record[F.path], record[F.question], record[F.target], ...replies]
      .filter((text) => text !== null).join("\n").toLowerCase());
  }
  return haystacks.get(index);
}

let kept = [], selected = 0;

function refilter() {
  const kind = outcome.value, wanted = group.value, text = search.value.trim().toLowerCase();
  const groups = new Set(data.groups.map((name, index) => [name, index])
    .filter(([name]) => !wanted || name.toLowerCase().includes(wanted.toLowerCase())).map(([, index]) => index));
  const before = kept[selected];
  kept = [];
  data.records.forEach((record, index) => {
    if (groups.has(record[F.group]) && passes(record, kind) && (!text || haystack(index).includes(text))) kept.push(index);
  });
  count.textContent = `${kept.length} of ${data.records.length}`;
  spacer.style.height = `${kept.length * ROW_HEIGHT}px`;
  choose(Math.max(0, kept.indexOf(before)));
}

/* ---- the list */

const spacer = h("div");
const pool = Array.from({length: POOL}, () => {
  const parts = {image: h("img", {alt: "", loading: "lazy"}), question: h("span", {class: "question"}),
    verdict: h("span"), reply: h("span", {class: "reply"})};
  const node = h("div", {class: "row", role: "option", onclick: () => choose(parts.position)},
    parts.image, parts.question, parts.verdict, parts.reply);
  return Object.assign(parts, {node, position: -1});
});
const list = h("div", {class: "list", role: "listbox", tabindex: "0", onscroll: () => fillList()}, spacer,
  ...pool.map((row) => row.node));

/* A text among others, whose direction is its own matter. */
const isolated = (text) => `\u2068${text}\u2069`;

function fillList() {
  const start = Math.max(0, Math.min(Math.floor(list.scrollTop / ROW_HEIGHT), kept.length - POOL));
  pool.forEach((row, offset) => {
    const position = start + offset;
    row.node.hidden = position >= kept.length;
    if (row.node.hidden) return;
    const record = data.records[kept[position]], first = record[F.first] || record[F.second];
    row.position = position;
    row.node.style.top = `${position * ROW_HEIGHT}px`;
    row.node.setAttribute("aria-selected", position === selected);
    const address = imageAddress(record);
    if (row.image.getAttribute("src") !== address) row.image.setAttribute("src", address);
    row.image.style.visibility = address ? "visible" : "hidden";
    row.question.textContent = inRow(record[F.question] || record[F.id]);
    const verdicts = [record[F.first], record[F.second]].filter(Boolean).map(verdict);
    row.verdict.textContent = [...new Set(verdicts)].join(" → ");
    row.verdict.className = verdicts[verdicts.length - 1].split(" ")[0];
    const target = record[F.target] === null ? "" : `  ·  target: ${isolated(inRow(record[F.target]))}`;
    row.reply.textContent = `reply: ${isolated(inRow(shownReply(first)))}${target}`;
  });
}

/* ---- one record */

const imageView = h("img", {alt: "the image of this record"});
const canvas = h("canvas");
const stage = h("div", {class: "stage", onmouseenter: () => showMap(true), onmouseleave: () => showMap(pinned)},
  imageView, canvas);
const legend = h("p", {class: "soft"});
const common = ["id", "path", "group", "question", "target"];
const perRun = ["reply", "read as", "verdict", "judge", "seconds"];
const cells = {};
const sheet = h("dl", both ? {class: "two"} : {});
function addCommon(name) {
  cells[name] = h("dd", {class: name === "prompt" ? "prompt wide" : "wide", dir: "auto"});
  sheet.append(h("dt", {text: name === "path" ? "image" : name}), cells[name]);
}
common.forEach(addCommon);
for (const name of perRun) {
  cells[name] = data.runs.map(() => h("dd", {dir: "auto"}));
  sheet.append(h("dt", {text: name}), ...cells[name]);
}
addCommon("prompt");
const detail = h("section", {class: "detail"}, h("figure", {}, stage, legend), sheet);
let pinned = false;

function choose(position) {
  selected = Math.max(0, Math.min(position, kept.length - 1));
  const top = selected * ROW_HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  fillList();
  detail.hidden = kept.length === 0;
  if (kept.length) showRecord(data.records[kept[selected]]);
}

function showRecord(record) {
  const replies = both ? [record[F.first], record[F.second]] : [record[F.first]];
  const address = imageAddress(record);
  stage.hidden = !address;
  if (imageView.getAttribute("src") !== address) imageView.setAttribute("src", address);
  const prompts = [...new Set(replies.filter(Boolean).map(promptOf).filter(Boolean))];
  const texts = {id: record[F.id], path: record[F.path] ?? "none", group: data.groups[record[F.group]] || "–",
    question: record[F.question], target: record[F.target] ?? "withheld",
    prompt: prompts.join("\n\n— the other run —\n\n") || "–"};
  for (const [name, text] of Object.entries(texts)) cells[name].textContent = visible(text);
  replies.forEach((reply, run) => {
    const fill = (name, text) => { cells[name][run].textContent = visible(text); };
    fill("reply", (both ? `${data.runs[run].name}: ` : "") + shownReply(reply)
      + (reply && reply[R.finished] === false ? "  [cut at the token limit]" : ""));
    fill("read as", reply && reply[R.extracted] ? reply[R.extracted] : "–");
    fill("verdict", reply ? verdict(reply) + (reply[R.score] === null ? "" : `, credit ${reply[R.score]}`) : "–");
    cells.verdict[run].className = reply ? verdict(reply).split(" ")[0] : "";
    fill("judge", reply && reply[R.judge].length
      ? reply[R.judge].map((said) => `${said.part}: ${said.verdict ?? "no verdict"} ${said.reply || ""}`).join("\n") : "–");
    fill("seconds", reply && reply[R.seconds] !== null ? String(reply[R.seconds]) : "–");
  });
  const map = record[F.image] === null ? null : data.images[record[F.image]].map;
  const absent = record[F.path] === null ? "no image" : "the image cannot be read, see the error";
  legend.textContent = !address ? (data.no_images || absent)
    : map ? `map (hover, or m): ${words(map) || "no objects"}` : "no map was kept of this image";
  showMap(pinned);
  try {
    history.replaceState(null, "", "#" + encodeURIComponent(record[F.id]));
  } catch { /* half a character, or too many steps in too short a time: no address for it */ }
}

function fitImage() {
  const width = Math.min(IMAGE_WIDTH, detail.clientWidth - 40);
  const scale = Math.min(width / imageView.naturalWidth, IMAGE_HEIGHT / imageView.naturalHeight);
  imageView.style.width = `${Math.max(1, Math.round(imageView.naturalWidth * scale))}px`;
  imageView.style.height = `${Math.max(1, Math.round(imageView.naturalHeight * scale))}px`;
  showMap(pinned);
}

function showMap(visible) {
  const record = data.records[kept[selected]];
  const map = record && record[F.image] !== null && imageAddress(record) ? data.images[record[F.image]].map : null;
  canvas.hidden = !visible || !map;
  if (canvas.hidden) return;
  drawMap(canvas, map, imageView.clientWidth || 384, imageView.clientHeight || 384);
}

/* ---- head */

let firstMetric = 0;
const metricRows = Array.from({length: Math.min(METRICS_SHOWN, data.metrics.length)}, () =>
  h("tr", {}, ...data.metric_columns.map(() => h("td"))));
function fillMetrics() {
  metricRows.forEach((row, offset) => {
    const metric = data.metrics[firstMetric + offset];
    row.hidden = !metric;
    if (metric) [...row.children].forEach((cell, column) => { cell.textContent = metric[column]; });
  });
}
const more = h("button", {text: `next figures (${data.metrics.length} in all)`, onclick: () => {
  firstMetric = firstMetric + METRICS_SHOWN < data.metrics.length ? firstMetric + METRICS_SHOWN : 0;
  fillMetrics();
}});
more.hidden = data.metrics.length <= METRICS_SHOWN;
fillMetrics();

const outcome = h("select", {"aria-label": "which records", onchange: () => refilter()},
  ...FILTERS.map(([value, text]) => h("option", {value, text})));
const choices = h("datalist", {id: "groups"});
const group = h("input", {placeholder: `group (${data.groups.length})`, list: "groups", "aria-label": "group",
  oninput: () => { fillGroups(); refilter(); }});
function fillGroups() {
  const wanted = group.value.toLowerCase();
  choices.replaceChildren(...data.groups.filter((name) => name.toLowerCase().includes(wanted)).slice(0, GROUPS_SHOWN)
    .map((value) => h("option", {value})));
}
fillGroups();
group.hidden = data.groups.length < 2;
const search = h("input", {type: "search", placeholder: "text of a record, or id", "aria-label": "text",
  oninput: () => refilter()});
const count = h("span");
const keys = "j k or ↓ ↑ step · m map · w wrong · a all · / search, Esc";

document.body.append(
  h("header", {},
    h("div", {}, h("h1", {text: data.title}), h("p", {class: "soft", text: data.about}),
      ...(data.warnings ? [h("p", {class: "warn", text: data.warnings})] : []),
      h("a", {href: "index.html", text: "all benchmarks"})),
    h("div", {}, h("table", {}, h("tr", {}, ...data.metric_columns.map((text) => h("th", {text}))), ...metricRows), more)),
  h("nav", {}, outcome, group, choices, search, count, h("span", {class: "soft", text: keys})),
  h("main", {}, list, detail));

function fitHeight() {
  const room = Math.max(300, Math.min((POOL - 1) * ROW_HEIGHT, window.innerHeight - list.getBoundingClientRect().top - 4));
  list.style.height = `${room}px`;
  if (window.innerWidth > 760) detail.style.height = `${room}px`;
  fillList();
}
window.addEventListener("resize", () => { fitHeight(); fitImage(); });
imageView.addEventListener("load", fitImage);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const leaves = event.key === "Escape" || (event.key === "Enter" && document.activeElement === search);
  if (leaves) { document.activeElement.blur(); return; }
  if (["INPUT", "SELECT"].includes(document.activeElement.tagName)) return;
  const actions = {
    j: () => choose(selected + 1), ArrowDown: () => choose(selected + 1), ArrowRight: () => choose(selected + 1),
    k: () => choose(selected - 1), ArrowUp: () => choose(selected - 1), ArrowLeft: () => choose(selected - 1),
    PageDown: () => choose(selected + 8), PageUp: () => choose(selected - 8),
    Home: () => choose(0), End: () => choose(kept.length - 1),
    m: () => { pinned = !pinned; showMap(pinned); },
    w: () => { outcome.value = "wrong"; refilter(); },
    a: () => { outcome.value = "all"; refilter(); },
    "/": () => search.focus(),
  };
  if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
});

const named = (() => { try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; } })();
refilter();
fitHeight();
fitHeight();  // without the scroll bar that the page had at first
const start = named ? data.records.findIndex((record) => record[F.id] === named) : 0;
choose(Math.max(0, start));
