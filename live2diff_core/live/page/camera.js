// The camera or the screen of this browser: an ES module without side effects.

const ADVICE = {
  Insecure:
    "a browser gives its camera to pages of https or localhost only: open this page by https, or " +
    "run `ssh -L 8188:localhost:8188 <server>` with its port, and open it as localhost",
  NotAllowed: "the browser was not allowed to use it: allow it beside the address, then try again",
  NotFound: "there is no such camera: plug it in, or choose another",
  NotReadable: "another program uses the camera: close that program, then try again",
  Overconstrained: "the camera cannot do what was asked of it: choose another",
  InvalidState: "the browser shares a screen only after a click: press the button",
};
const SIZE = { width: { ideal: 1280 }, height: { ideal: 720 } };

/** What to do about an error of a camera. words: texts in the place of the English ones, by names
 * such as cameraNotFound.
 */
export function advise({ name, message }, words = {}) {
  const reason = name.replace(/Error$/, "");
  return words[`camera${reason}`] ?? ADVICE[reason] ?? message;
}

/** Cameras as [{label, deviceId}]; none before the browser was allowed to use one. */
export async function listCameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter(({ kind, deviceId }) => kind === "videoinput" && deviceId);
}

/**
 * Films into a LiveSocket, whenever that is ready, at most `rate` times a second.
 *
 * options:
 *   video     the element that shows it (default: one that stands in no page)
 *   onEnded   called when the camera was unplugged, or the sharing of the screen was ended
 */
export class Camera {
  mirror = false;
  onEnded;
  #rate = 30;
  #video;
  #media = null;
  #shows = "camera";
  #turn = 0; // of the latest open() or close()
  #socket = null;
  #lens = document.createElement("canvas"); // what is sent
  #shape = null; // that the stream wants
  #pace = new Pace();
  #ticks = null;
  #callback = 0;

  constructor({ video = document.createElement("video"), onEnded } = {}) {
    this.onEnded = onEnded;
    this.#video = Object.assign(video, { muted: true, playsInline: true });
  }

  get rate() {
    return this.#rate;
  }

  set rate(rate) {
    this.#rate = rate;
    if (this.#media) this.#film();
  }

  /** What is seen, for other elements to show; null while it is closed. */
  get media() {
    return this.#media;
  }

  /**
   * Open it, also in the place of another. shows: "camera" or "screen". device: label or id of a
   * camera; empty: the first. Rejects with an error for advise(), or AbortError where close() or
   * another open() came between.
   */
  async open({ shows = "camera", device = "", rate = 30, mirror = false } = {}) {
    this.close();
    const turn = this.#turn;
    Object.assign(this, { rate, mirror });
    this.#shows = shows;
    const frameRate = { ideal: rate };
    const asking = shows === "screen" ? askForScreen(frameRate) : askForCamera(device, frameRate);
    const media = await asking.catch((error) => {
      if (turn === this.#turn) throw error;
    });
    if (turn !== this.#turn) {
      if (media) stopTracks(media);
      throw new DOMException("closed in the meantime", "AbortError");
    }
    this.#adopt(media);
    await this.#video.play().catch(() => {}); // it begins later, or was closed
  }

  /** Stop it; it may be opened again. */
  close() {
    this.#turn += 1;
    this.#rest();
    document.removeEventListener("visibilitychange", this.#film);
    this.#ticks?.terminate();
    this.#ticks = null;
    if (this.#media) stopTracks(this.#media);
    this.#media = null;
    this.#video.srcObject = null;
  }

  /** Send to this socket from now on; null: to none. */
  feed(socket) {
    this.#socket = socket;
  }

  /** Width and height that the stream wants; by default the camera's own. */
  cut({ width, height }) {
    this.#shape = width && height ? { width, height } : null;
  }

  #adopt(media) {
    this.#media = media;
    this.#video.srcObject = media;
    media.getVideoTracks()[0].onended = () => {
      this.close();
      this.onEnded?.();
    };
    this.#ticks = new Worker(new URL("./ticks.js", import.meta.url));
    this.#ticks.onmessage = () => this.#send();
    document.addEventListener("visibilitychange", this.#film);
    this.#film();
  }

  // ---- one loop at a time

  /** In a hidden tab video frames call nobody; those of a still screen do not either. */
  #film = () => {
    this.#rest();
    if (document.hidden || this.#shows === "screen") this.#ticks.postMessage(1000 / this.#rate);
    else this.#await();
  };

  #rest() {
    this.#ticks?.postMessage(0);
    if (this.#video.cancelVideoFrameCallback) this.#video.cancelVideoFrameCallback(this.#callback);
    else cancelAnimationFrame(this.#callback);
  }

  #await() {
    const next = () => {
      this.#await();
      this.#send();
    };
    if (this.#video.requestVideoFrameCallback) {
      this.#callback = this.#video.requestVideoFrameCallback(next);
    } else this.#callback = requestAnimationFrame(next);
  }

  // ---- a frame

  async #send() {
    const socket = this.#socket;
    if (!socket?.ready || !this.#video.videoWidth) return;
    if (!this.#pace.admits(performance.now(), 1000 / this.#rate)) return;
    this.#draw();
    await socket.sendFrame(this.#lens);
  }

  /** The middle of the picture, in the shape that the stream wants. */
  #draw() {
    const { videoWidth, videoHeight } = this.#video;
    const { width, height } = this.#shape ?? { width: videoWidth, height: videoHeight };
    const lens = this.#lens;
    if (lens.width !== width || lens.height !== height) Object.assign(lens, { width, height });
    const scale = Math.max(width / videoWidth, height / videoHeight);
    const left = (width - videoWidth * scale) / 2;
    const top = (height - videoHeight * scale) / 2;
    const context = lens.getContext("2d");
    if (this.mirror) context.setTransform(-1, 0, 0, 1, width, 0);
    else context.resetTransform();
    context.drawImage(this.#video, left, top, videoWidth * scale, videoHeight * scale);
  }
}

/** At most one a period; one may be early by half of it, so that a jitter costs none. */
class Pace {
  #due = 0;

  admits(now, period) {
    if (now < this.#due - period / 2) return false;
    this.#due = Math.max(this.#due, now - period / 2) + period;
    return true;
  }
}

async function askForCamera(device, frameRate) {
  const asked = await askFor(device && (await find(device)), frameRate);
  if (!device || isOf(asked, device)) return asked;
  stopTracks(asked); // labels are known from now on
  const deviceId = await find(device);
  if (!deviceId) throw new DOMException(`there is no camera ${device}`, "NotFoundError");
  return askFor(deviceId, frameRate);
}

function askFor(deviceId, frameRate) {
  const video = { ...SIZE, frameRate };
  if (deviceId) video.deviceId = { exact: deviceId };
  return mediaDevices().getUserMedia({ video, audio: false });
}

async function askForScreen(frameRate) {
  return mediaDevices().getDisplayMedia({ video: { frameRate }, audio: false });
}

/** Raises where the browser has them for none of this page's kind. */
function mediaDevices() {
  if (navigator.mediaDevices) return navigator.mediaDevices;
  throw new DOMException(ADVICE.Insecure, "InsecureError");
}

/** The id of a camera by its label or id. */
async function find(device) {
  const cameras = await listCameras();
  return cameras.find((c) => c.label === device || c.deviceId === device)?.deviceId ?? "";
}

function isOf(media, device) {
  const [track] = media.getVideoTracks();
  return track.label === device || track.getSettings().deviceId === device;
}

function stopTracks(media) {
  for (const track of media.getTracks()) track.stop();
}
