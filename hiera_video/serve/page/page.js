// Upload a video to the server, and play the browser's own copy of it beside the answer.

import { Chart, scoresAt, shown } from "./chart.js";

const $ = (id) => document.getElementById(id);
const video = $("video"), scrub = $("scrub");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const MB = 1e6;

let info = null; // what /info says about the model
let request = null; // the upload in progress
let answer = null;
let file = null;
let url = "";
let moment = 0; // seconds; used if the browser cannot play the video
let plays = true;

const chart = new Chart($("chart"), seek);
fetch("info").then((reply) => reply.json()).then(introduce, () => fail("The server does not answer."));

function introduce(found) {
  info = found;
  const number = info.class_names.length;
  $("about").textContent =
    `${info.model} recognises ${number} classes, from ${info.window_sec} s of video at a time.`;
  const whose = info.is_local ? "It stays on this machine" : `It is sent to ${location.hostname}`;
  $("limits").textContent =
    `Up to ${info.max_upload_mb} MB. ${whose} and is deleted once it is answered.`;
  $("known-title").textContent = `The ${number} classes it knows`;
  $("known").open = number <= 24;
  $("classes").replaceChildren(...info.class_names.map((name) => element("li", "", shown(name))));
}

// --- From a file to an answer

function choose(chosen) {
  if (!chosen) return;
  file = chosen;
  $("error").hidden = true;
  const reason = reasonAgainst(file);
  if (reason) fail(reason);
  else upload();
}

// The server checks again and more thoroughly; this only saves an upload.
function reasonAgainst(chosen) {
  if (info && chosen.size > info.max_upload_mb * MB) {
    const size = (chosen.size / MB).toFixed(1);
    return `The file is too large: ${size} MB, and this server takes up to ${info.max_upload_mb} MB.`;
  }
  if (chosen.size === 0) return "The file is empty (0 bytes).";
  if (/^(text|audio|font)\/|^image\/(?!gif|apng)|^application\/(pdf|zip|json)/.test(chosen.type)) {
    return `This file is ${chosen.type}, not a video.`;
  }
  return "";
}

function upload() {
  const form = new FormData();
  form.append("video", file);
  request = new XMLHttpRequest();
  const mine = request;
  const name = crypto.randomUUID?.() || String(Math.random()); // identifies this upload in /progress
  const done = (act) => () => {
    if (mine === request) act();
  };
  request.upload.onprogress = (event) => {
    if (mine !== request || !event.lengthComputable) return;
    $("progress").value = event.loaded / event.total;
    say(`Uploading: ${Math.round((100 * event.loaded) / event.total)} %`);
  };
  request.upload.onload = done(() => {
    $("progress").removeAttribute("value");
    say("Analysing the video …");
    watch(mine, name);
  });
  request.onload = done(() => receive(mine));
  request.onerror = done(() => fail("The server does not answer. Is it still running?", true));
  $("working-name").textContent = file.name;
  $("progress").value = 0;
  say("Uploading …");
  document.body.dataset.state = "working";
  $("cancel").focus();
  request.open("POST", `predict?name=${name}`);
  request.send(form);
}

// Poll and show how many windows are done until the answer arrives.
async function watch(mine, name) {
  for (;;) {
    await new Promise((done) => setTimeout(done, 500));
    if (mine !== request) return;
    const reply = await fetch(`progress?name=${name}`).catch(() => null);
    if (mine !== request) return;
    const found = reply?.ok ? await reply.json() : null;
    if (mine !== request || !found?.windows) continue;
    $("progress").value = found.windows_done / found.windows;
    say(`Analysing the video: ${found.windows_done} of ${found.windows} windows`);
  }
}

function receive(reply) {
  let content = null;
  try {
    content = JSON.parse(reply.responseText);
  } catch {
    content = { error: reply.responseText || "The server gave no answer." };
  }
  if (reply.status === 200) show(content);
  else fail(content.error, [408, 500, 503].includes(reply.status));
}

function fail(reason, mayHelp = false) {
  reset();
  $("error-text").textContent = file ? `${shortened(file.name)}: ${reason}` : reason;
  $("error").hidden = false;
  $("retry").hidden = !mayHelp;
  $(mayHelp ? "retry" : "file").focus();
}

function reset() {
  request = null;
  video.pause();
  document.body.dataset.state = "empty";
  $("file").value = ""; // so that the same file can be chosen again
}

// --- The answer

function show(found) {
  answer = found;
  request = null;
  plays = true;
  moment = 0;
  document.body.dataset.state = "result";
  const best = answer.predictions[0];
  $("verdict").textContent = `${shown(best.name)}, ${percent(best.score)}`;
  const looks = answer.windows.length === 1 ? "one window" : `${answer.windows.length} windows`;
  const work = answer.timing.decode_sec + answer.timing.model_sec;
  $("facts").textContent = [
    `${shortened(file.name)}: ${answer.duration_sec.toFixed(1)} s, seen in ${looks},`,
    `answered in ${work.toFixed(work < 10 ? 2 : 0)} s.`, answer.note,
  ].join(" ");
  $("whole").replaceChildren(...answer.predictions.map((one, place) => bar(one, `c${place}`)));
  $("now").replaceChildren();
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(file);
  video.hidden = false;
  $("unplayable").hidden = true;
  video.src = url;
  scrub.max = answer.duration_sec;
  chart.show(answer);
  update();
  $("verdict").focus({ preventScroll: true });
  scrollTo(0, 0);
  if (!calm.matches) video.play().catch(() => {});
}

function update() {
  if (!answer) return;
  const time = plays ? video.currentTime : moment;
  $("clock").textContent = `${time.toFixed(1)} s`;
  scrub.value = time;
  scrub.setAttribute("aria-valuetext", `${time.toFixed(1)} seconds`);
  chart.move(time);
  const { labels, names } = answer.evidence;
  const scores = scoresAt(answer, time);
  const order = labels.map((_, place) => place).sort((a, b) => scores[b] - scores[a]);
  const top = order.slice(0, answer.predictions.length);
  arrange(top.map((place) => ({ label: labels[place], name: names[place], score: scores[place], place })));
}

// Sort the bars; those that change places are animated.
function arrange(rows) {
  const list = $("now");
  const known = new Map([...list.children].map((item) => [item.dataset.label, item]));
  const tops = new Map([...known].map(([label, item]) => [label, item.offsetTop]));
  const items = rows.map((row) => {
    const colour = row.place < answer.predictions.length ? `c${row.place}` : "";
    const item = known.get(String(row.label)) || bar(row, colour);
    setBar(item, row.score);
    return item;
  });
  if (items.length === list.children.length && items.every((item, at) => item === list.children[at])) return;
  list.replaceChildren(...items);
  if (calm.matches) return;
  for (const item of items) {
    const from = tops.get(item.dataset.label);
    const moved = from === undefined ? 0 : from - item.offsetTop;
    if (moved) item.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], 180);
    if (from === undefined && tops.size) item.animate([{ opacity: 0 }, { opacity: 1 }], 180);
  }
}

function bar(one, colour) {
  const item = element("li", colour);
  item.dataset.label = one.label;
  item.title = shown(one.name);
  const track = element("div", "track");
  track.append(element("div", "fill"));
  item.append(element("span", "name", shown(one.name)), element("span", "share"), track);
  setBar(item, one.score);
  return item;
}

function setBar(item, score) {
  item.querySelector(".share").textContent = percent(score);
  item.querySelector(".fill").style.width = `${100 * score}%`;
}

// --- Time

function seek(time) {
  moment = time;
  if (plays) video.currentTime = time;
  update();
}

// Hide the player: the browser does not support the file's codec or container.
function doWithout() {
  plays = false;
  video.pause();
  video.hidden = true;
  $("unplayable").hidden = false;
  update();
}

function follow() {
  update();
  if (!video.paused && !video.ended) requestAnimationFrame(follow);
}

video.addEventListener("play", () => {
  document.body.classList.remove("paused");
  follow();
});
video.addEventListener("pause", () => document.body.classList.add("paused"));
for (const name of ["timeupdate", "seeking", "seeked", "loadedmetadata"]) video.addEventListener(name, update);
video.addEventListener("error", () => video.getAttribute("src") && doWithout());
video.addEventListener("loadedmetadata", () => video.videoWidth || doWithout()); // sound only
scrub.addEventListener("input", () => seek(Number(scrub.value)));

// --- Input

$("file").addEventListener("change", () => choose($("file").files[0]));
$("retry").addEventListener("click", () => choose(file));
$("cancel").addEventListener("click", () => {
  const dropped = request;
  reset();
  dropped?.abort();
  $("file").focus();
});
$("again").addEventListener("click", () => {
  reset();
  $("error").hidden = true;
  $("file").focus();
});

let depth = 0; // number of nested elements that the dragged file is over
const dragsFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
addEventListener("dragenter", (event) => {
  if (!dragsFile(event)) return;
  depth += 1;
  document.body.classList.add("over");
});
addEventListener("dragleave", () => {
  depth = Math.max(depth - 1, 0);
  if (!depth) document.body.classList.remove("over");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault(); // otherwise the browser leaves the page and opens the file
  depth = 0;
  document.body.classList.remove("over");
  if (document.body.dataset.state !== "working") choose(event.dataTransfer?.files[0]);
});

// --- Helpers

function element(name, classes = "", words = "") {
  const made = document.createElement(name);
  made.className = classes;
  made.textContent = words;
  return made;
}

function percent(score) {
  return `${(100 * score).toFixed(score < 0.0995 ? 1 : 0)}\u00a0%`;
}

function say(words) {
  $("stage").textContent = words;
}

function shortened(name) {
  return name.length > 60 ? `${name.slice(0, 40)}…${name.slice(-15)}` : name;
}
