// The words of the pack in the page: those of locales/, and the English ones until they are there.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

export const words = {
  closed: "Live2Diff sessions closed:",
  notClosed: "Live2Diff sessions could not be closed",
  begunAnew:
    "The stream begins anew at its warm-up: ComfyUI dropped its output, as it does when memory is scarce. --cache-classic or a larger --cache-ram keeps it.",
  busy: "Other programs use this computer's processor: a run on it will take several times as long. The console says what to do.",
  nothingRuns: "No live stream runs in this page",
  stop: "Stop",
  stopTip: "Ends the stream.",
  pause: "Pause",
  pauseTip: "Shows nothing new.",
  freeze: "Freeze",
  freezeTip: "Holds the picture.",
  passthrough: "Pass through",
  passthroughTip: "Shows the input.",
  panic: "Panic",
  panicTip: "Shows the card at once; the key is F9.",
  obsLink: "OBS link",
  obsLinkTip: "Copies the address of a clean page, for OBS's browser source.",
  fullScreen: "Full screen",
  fullScreenTip: "Shows the picture on the whole screen.",
  ownPicture: "Camera",
  ownPictureTip: "Shows what goes in, in the corner.",
  settings: "More settings",
  settingsTip: "Shows what is rarely needed.",
  idle: "press Run to start",
  queued: "queued: it starts when what runs before it has ended",
  stopping: "stopping",
  ended: "the stream has ended",
  connecting: "connecting",
  waiting: "no connection, trying again",
  noConnection: "not connected",
  starting: "starting",
  running: "running",
  paused: "paused",
  failing: "failing",
  stopped: "stopped",
  rates: "# in, # out frames/s",
  latency: "latency # ms",
  latencyTip: "From camera to this picture: the median, and what 19 of 20 frames keep to.",
  dropped: "# dropped",
  saved: "# saved",
  changing: "changing",
  fromFrame: "from frame # on",
  nextRun: "# takes effect at the next run",
  copied: "copied",
  copy: "Copy",
  noPage: "the server did not give the page's scripts:",
  notStopped: "the stream could not be stopped:",
  needsToken: "this server needs its token, which stands in its log",
  replaced: "another page or program feeds this stream now",
  enterToken: "Enter token",
  token: "Token of the server, from its log",
  wrongToken: "this is not the token of the server",
  tokenTaken: "the token was taken",
  reconnect: "Reconnect",
  tryAgain: "Try again",
  shareScreen: "Share the screen",
  cameraGone: "the camera is gone, or the sharing was ended",
  cameraRemoved: "the camera's node was removed",
  testCamera: "Test camera",
  stopTest: "Stop test",
  chooseCamera: "Camera",
  defaultCamera: "the browser's first",
  notThere: "# (not there)",
  cameraRuns: "the camera runs",
  cameraOff: "the camera is off",
  address: "Address",
  stream: "Stream",
  key: "Key",
  program: "Press Run on Live: here you will see where the frames are to be sent.",
  cameraInsecure:
    "a browser gives its camera to pages of https or localhost only: open ComfyUI by https, or run 'ssh -L 8188:localhost:8188 SERVER' and open http://localhost:8188",
  cameraNotAllowed:
    "the browser was not allowed to use it: allow it beside the address, then try again",
  cameraNotFound: "there is no such camera: plug it in, or choose another",
  cameraNotReadable: "another program uses the camera: close that program, then try again",
  cameraOverconstrained: "the camera cannot do what was asked of it: choose another",
  cameraInvalidState: "the browser shares a screen only after a click: press the button",
};

/** Take the words of the user's language. */
export async function translate() {
  const translations = await api.getCustomNodesI18n();
  const locale = app.extensionManager.setting.get("Comfy.Locale");
  Object.assign(words, translations[locale]?.live2diff);
}

/** Words with numbers or names in the places of their #. */
export function fill(text, ...values) {
  return values.reduce((filled, value) => filled.replace("#", () => value), text);
}

/** Refusals of an answer, or from which frame on it shows; the event says so of what takes longer. */
export function answerText({ frame, effects, refused }) {
  const reasons = Object.entries(refused).map(([name, why]) => `${name}: ${why}`);
  if (reasons.length) return reasons.join("; ");
  if (Object.values(effects).includes("re-prime")) return words.changing;
  return fill(words.fromFrame, frame);
}
