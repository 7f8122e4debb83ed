// The page of `live2diff serve`: the camera goes in, its translation comes out.

import { Camera, advise, listCameras } from "./camera.js";
import { LiveSocket, draw } from "./live.js";

const $ = (selector) => document.querySelector(selector);
const output = $("#output");
const form = $("#settings");
const toggles = [...document.querySelectorAll("[data-toggle]")];
const camera = new Camera({ video: $("#camera"), onEnded: () => stop("the camera is gone") });

let socket = null;

function say(text) {
  $("#said").textContent = text;
}

async function fillList() {
  const select = $("#device");
  const chosen = select.value;
  select.replaceChildren(new Option("default", ""));
  for (const { label, deviceId } of await listCameras()) select.add(new Option(label, deviceId));
  select.value = chosen;
}

// ---- the stream

function settings() {
  const given = {};
  for (const { name, value, type } of form.elements) {
    if (name && value.trim()) given[name] = type === "number" ? Number(value) : value.trim();
  }
  return given;
}

function onState(state, text) {
  const line = $("#state");
  line.dataset.state = state;
  line.textContent = text;
  for (const toggle of toggles) toggle.disabled = state !== "open";
}

function onStream({ view, width, height }) {
  say("");
  camera.cut({ width, height });
  const link = $("#view");
  link.href = link.textContent = new URL(view, location.href).href;
}

function onStatistics({ state, error, fps_in, fps_out, stages, dropped_total }) {
  const { p50, p95 } = stages.total ?? {};
  const latency = p50 === undefined ? "" : ` · latency ${p50.toFixed(0)}/${p95.toFixed(0)} ms`;
  const rates = `${fps_in.toFixed(1)} in · ${fps_out.toFixed(1)} out frames/s`;
  $("#statistics").textContent = `${state} · ${rates}${latency} · ${dropped_total} dropped`;
  if (error) say(error);
}

/** What was taken is what a stream begins with, should it be opened anew. */
function onAnswer({ frame, effects, refused }, changes) {
  const taken = Object.entries(changes).filter(([name]) => name in effects);
  socket?.configure(Object.fromEntries(taken));
  const reasons = Object.entries(refused).map(([name, why]) => `${name}: ${why}`);
  const isMade = Object.values(effects).includes("re-prime"); // beside the stream; an event tells
  say(reasons.join("; ") || (isMade ? "changing" : `from frame ${frame} on`));
}

function onEvent({ event, message, frame }) {
  say(event === "changed" ? `from frame ${frame} on` : `${event}: ${message}`);
}

const isOn = (toggle) => toggle.getAttribute("aria-pressed") === "true";

function press(toggle) {
  toggle.setAttribute("aria-pressed", String(!isOn(toggle)));
  socket?.steer({ [toggle.dataset.toggle]: isOn(toggle) });
}

// ---- start and stop

async function start() {
  $("#start").disabled = true;
  say("");
  try {
    await camera.open({ device: $("#device").value });
    await fillList();
  } catch (error) {
    stop(advise(error));
    return;
  }
  socket = new LiveSocket({
    settings: settings(),
    onState,
    onStream,
    onStatistics,
    onAnswer,
    onFrame: (frame) => draw(output, frame),
    onEvent,
    onError: ({ message }) => say(message),
  });
  socket.connect();
  camera.feed(socket);
  $("#stop").disabled = false;
}

function stop(text) {
  camera.close();
  socket?.end();
  socket = null;
  for (const toggle of toggles) toggle.setAttribute("aria-pressed", "false");
  $("#start").disabled = false;
  $("#stop").disabled = true;
  say(text);
}

$("#start").onclick = start;
$("#stop").onclick = () => stop("");
form.onsubmit = (event) => event.preventDefault();
form.onchange = ({ target }) => {
  if (target.name && target.value.trim() && target.reportValidity()) {
    socket?.steer({ [target.name]: settings()[target.name] });
  }
};
for (const toggle of toggles) toggle.onclick = () => press(toggle);
document.onkeydown = (event) => {
  const writing = event.target.matches("textarea, input, select");
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat;
  const panic = $("[data-toggle=panic]");
  if (event.key.toLowerCase() === "p" && plain && !writing && !panic.disabled) press(panic);
};
addEventListener("pagehide", () => stop(""));
