// The page of `live2diff serve`: the camera goes in, its translation comes out.

import { LiveSocket, draw } from "./live.js";

const $ = (selector) => document.querySelector(selector);
const output = $("#output");
const camera = $("#camera");
const form = $("#settings");
const toggles = [...document.querySelectorAll("[data-toggle]")];
const lens = document.createElement("canvas"); // what is sent

let socket = null;
let media = null;

const ADVICE = {
  NotAllowedError: "the browser was not allowed to use the camera: allow it beside the address",
  NotFoundError: "there is no camera",
  NotReadableError: "another program uses the camera",
};

function say(text) {
  $("#said").textContent = text;
}

// ---- the camera

async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("a browser gives its camera to pages of https or localhost only");
  }
  const deviceId = $("#device").value;
  const video = { width: { ideal: 1280 }, height: { ideal: 720 } };
  if (deviceId) video.deviceId = { exact: deviceId };
  const opened = await navigator.mediaDevices.getUserMedia({ video, audio: false });
  opened.getVideoTracks()[0].onended = () => stop("the camera is gone");
  return opened;
}

async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
  const select = $("#device");
  const chosen = select.value;
  select.replaceChildren(new Option("default", ""));
  for (const { label, deviceId } of cameras) select.add(new Option(label || "camera", deviceId));
  select.value = chosen;
}

function releaseCamera() {
  for (const track of media?.getTracks() ?? []) {
    track.onended = null;
    track.stop();
  }
  media = null;
  camera.srcObject = null;
}

/** The middle of the camera's picture, in the shape that the server wants. */
function crop() {
  const { videoWidth, videoHeight } = camera;
  const scale = Math.max(lens.width / videoWidth, lens.height / videoHeight);
  const width = lens.width / scale;
  const height = lens.height / scale;
  const context = lens.getContext("2d");
  const left = (videoWidth - width) / 2;
  const top = (videoHeight - height) / 2;
  context.drawImage(camera, left, top, width, height, 0, 0, lens.width, lens.height);
}

function nextPicture(then) {
  if (camera.requestVideoFrameCallback) camera.requestVideoFrameCallback(then);
  else requestAnimationFrame(then);
}

async function film() {
  if (!media) return;
  nextPicture(film);
  if (socket?.ready && camera.videoWidth) {
    crop();
    await socket.sendFrame(lens);
  }
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
  if (width) Object.assign(lens, { width, height });
  const link = $("#view");
  link.href = link.textContent = new URL(view, location.href).href;
  for (const toggle of toggles) if (isOn(toggle)) change({ [toggle.dataset.toggle]: true });
}

function onStatistics({ state, error, fps_in, fps_out, stages, dropped_total }) {
  const { p50, p95 } = stages.total ?? {};
  const latency = p50 === undefined ? "" : ` · latency ${p50.toFixed(0)}/${p95.toFixed(0)} ms`;
  const rates = `${fps_in.toFixed(1)} in · ${fps_out.toFixed(1)} out frames/s`;
  $("#statistics").textContent = `${state} · ${rates}${latency} · ${dropped_total} dropped`;
  if (error) say(error);
}

async function change(changes) {
  socket?.configure(changes);
  if (socket?.state !== "open") return;
  try {
    const { frame, refused } = await socket.control(changes);
    const reasons = Object.entries(refused).map(([name, why]) => `${name}: ${why}`);
    say(reasons.join("; ") || `from frame ${frame} on`);
  } catch (error) {
    say(error.message);
  }
}

const isOn = (toggle) => toggle.getAttribute("aria-pressed") === "true";

function press(toggle) {
  toggle.setAttribute("aria-pressed", String(!isOn(toggle)));
  change({ [toggle.dataset.toggle]: isOn(toggle) });
}

// ---- start and stop

async function start() {
  $("#start").disabled = true;
  say("");
  try {
    media = await openCamera();
    camera.srcObject = media;
    await camera.play();
    await listCameras();
  } catch (error) {
    stop(ADVICE[error.name] ?? error.message);
    return;
  }
  Object.assign(lens, { width: camera.videoWidth, height: camera.videoHeight });
  socket = new LiveSocket({
    settings: settings(),
    onState,
    onStream,
    onStatistics,
    onFrame: (frame) => draw(output, frame),
    onEvent: ({ event, message }) => say(`${event}: ${message}`),
    onError: ({ message }) => say(message),
  });
  socket.connect();
  $("#stop").disabled = false;
  film();
}

function stop(text) {
  socket?.end();
  socket = null;
  releaseCamera();
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
    change({ [target.name]: settings()[target.name] });
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
