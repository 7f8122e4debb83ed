// The protocol of Live2Diff for pages (docs/protocol.md): an ES module without side effects.

import { Lane, NotConnected } from "./steering.js";

export const VERSION = 1;

const MAGIC = 0x4644324c; // "L2DF", little-endian
const HEADER_BYTES = 32;
const KINDS = ["jpeg", "webp", "raw"];
const FIRST_RETRY = 500; // milliseconds
const LONGEST_RETRY = 10_000;
const FINAL = new Set(["unknown_version", "forbidden", "replaced"]); // trying again would not help
const UNANSWERED = new Set(["refused", "bad_message", "not_allowed"]); // in the place of an answer
// What needs no new priming: it waits for no other change, the panic key least of all.
const AT_ONCE = new Set(["pause", "freeze", "passthrough", "panic", "similarity", "rate"]);

/**
 * One connection to a stream, which comes back by itself when the line breaks.
 *
 * options:
 *   url       address of the socket (default: that of the server which this file is from)
 *   role      "source", "viewer" or "controller"
 *   stream, key   of a stream that is there; a source without them opens one of its own
 *   settings  what a stream of one's own begins with
 *   window    frames that may be on their way to the server, 1 to 16
 *   frames    whether translated frames are wanted (default: yes, but not by a controller)
 *   quality   of the JPEG pictures that are sent, 0 to 1
 *   onState(state, text)   "connecting", "open", "waiting" (for the next try) or "closed"
 *   onFrame({bitmap, index, timestamp, width, height})   close the bitmap when it has been drawn
 *   onStream({stream, key, view, name, width, height}), onStatistics(figures),
 *   onEvent({event, message, frame}), onError({code, message})
 *   onAnswer({frame, effects, refused}, changes)   to steer()
 */
export class LiveSocket {
  #options;
  #socket = null;
  #state = "closed";
  #retry = FIRST_RETRY;
  #timer = 0;
  #until = 0; // frames that may have been sent on this connection
  #sent = 0;
  #index = 0;
  #encoding = false;
  #request = 0;
  #answers = new Map();
  #lanes;
  #pending = null; // the newest picture, while an older one is decoded
  #decoding = false;

  constructor(options) {
    const url = new URL("../socket", import.meta.url);
    url.protocol = url.protocol.replace("http", "ws");
    this.#options = { url: url.href, role: "source", window: 2, quality: 0.85, ...options };
    const lane = () =>
      new Lane({
        control: (changes) => this.control(changes),
        isOpen: () => this.#state === "open",
        onAnswer: (answer, changes) => this.#options.onAnswer?.(answer, changes),
      });
    this.#lanes = { atOnce: lane(), later: lane() };
  }

  get state() {
    return this.#state;
  }

  /** Whether the server takes a frame now. */
  get ready() {
    return this.#state === "open" && this.#sent < this.#until && !this.#encoding;
  }

  /** Connect, and again whenever the line breaks, until close(). */
  connect() {
    clearTimeout(this.#timer);
    this.#enter("connecting", "connecting");
    this.#until = this.#sent = 0;
    const socket = new WebSocket(this.#options.url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#hello();
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      if (typeof data === "string") this.#hear(JSON.parse(data));
      else this.#see(data);
    };
    socket.onclose = () => {
      if (this.#socket === socket) this.#lost();
    };
  }

  /** Send what a canvas shows; false where the server has no room for it now. */
  async sendFrame(canvas) {
    if (!this.ready) return false;
    const socket = this.#socket;
    this.#encoding = true;
    try {
      const timestamp = clock();
      const picture = await toJpeg(canvas, this.#options.quality);
      if (!picture || socket !== this.#socket || socket.readyState !== WebSocket.OPEN) return false;
      socket.send(packFrame(picture, this.#index, timestamp, canvas.width, canvas.height));
      this.#index += 1;
      this.#sent += 1;
      return true;
    } finally {
      this.#encoding = false;
    }
  }

  /** Change parameters; resolves to {frame, effects, refused}. */
  control(changes) {
    if (this.#state !== "open") return Promise.reject(new NotConnected());
    const request = ++this.#request;
    this.#say("control", { changes, request });
    return new Promise((resolve, reject) => this.#answers.set(request, { resolve, reject }));
  }

  /** Change what is being dragged: the newest values count, also those of a broken line. */
  steer(changes) {
    const wanted = { atOnce: {}, later: {} };
    for (const [name, value] of Object.entries(changes)) {
      wanted[AT_ONCE.has(name) ? "atOnce" : "later"][name] = value;
    }
    for (const [name, lane] of Object.entries(this.#lanes)) lane.want(wanted[name]);
  }

  /** What a stream of one's own begins with, should it be opened anew. */
  configure(settings) {
    this.#options.settings = { ...this.#options.settings, ...settings };
  }

  /** Leave. The stream of a source goes on for a while, for it to come back. */
  close(text = "stopped") {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#forget();
    this.#enter("closed", text);
  }

  /** Leave, and end the stream that this source feeds. */
  end() {
    if (this.#state === "open") this.#say("end");
    this.close();
  }

  #hello() {
    const { role, stream, key, window, frames } = this.#options;
    this.#say("hello", { version: VERSION, role, stream, key, window, frames });
    if (role === "source" && !stream) {
      this.#say("configure", { settings: this.#options.settings ?? {} });
    }
  }

  #hear(message) {
    const { type } = message;
    if (type === "stream") {
      if (message.key) Object.assign(this.#options, { stream: message.stream, key: message.key });
      this.#retry = FIRST_RETRY;
      this.#enter("open", "connected");
      this.#options.onStream?.(message);
      for (const lane of Object.values(this.#lanes)) lane.resume();
    } else if (type === "credit") this.#until = message.until;
    else if (type === "statistics") this.#options.onStatistics?.(message);
    else if (type === "event") this.#tell(message);
    else if (type === "error") this.#fail(message);
    else if (type === "answer") this.#take(message.request)?.resolve(message);
  }

  #tell(event) {
    this.#lanes.later.hear(event);
    this.#options.onEvent?.(event);
  }

  /** Who waits for an answer. */
  #take(request) {
    const asking = this.#answers.get(request);
    this.#answers.delete(request);
    return asking;
  }

  #fail(error) {
    const [oldest] = this.#answers.keys(); // questions are answered in their order
    if (UNANSWERED.has(error.code)) this.#take(oldest)?.reject(new Error(error.message));
    this.#options.onError?.(error);
    const { settings } = this.#options;
    if (FINAL.has(error.code) || (error.code === "refused" && this.#state === "connecting")) {
      this.close(error.message);
    } else if (error.code === "no_such_stream" && settings) {
      Object.assign(this.#options, { stream: undefined, key: undefined });
    }
  }

  #see(buffer) {
    this.#pending = buffer;
    if (!this.#decoding) this.#decode();
  }

  async #decode() {
    this.#decoding = true;
    while (this.#pending) {
      const buffer = this.#pending;
      this.#pending = null;
      try {
        const frame = unpackFrame(buffer);
        frame.bitmap = await createImageBitmap(frame.picture);
        if (this.#options.onFrame) this.#options.onFrame(frame);
        else frame.bitmap.close();
      } catch (error) {
        this.#options.onError?.({ code: "bad_picture", message: error.message });
      }
    }
    this.#decoding = false;
  }

  #lost() {
    this.#socket = null;
    this.#forget();
    const seconds = (this.#retry / 1000).toFixed(1);
    this.#enter("waiting", `no connection, next try in ${seconds} s`);
    this.#timer = setTimeout(() => this.connect(), this.#retry * (0.75 + Math.random() / 2));
    this.#retry = Math.min(2 * this.#retry, LONGEST_RETRY);
  }

  #forget() {
    this.#pending = null;
    for (const { reject } of this.#answers.values()) reject(new NotConnected());
    this.#answers.clear();
    this.#lanes.later.interrupt();
  }

  #enter(state, text) {
    this.#state = state;
    this.#options.onState?.(state, text);
  }

  #say(type, fields) {
    this.#socket.send(JSON.stringify({ type, ...fields }));
  }
}

/** Seconds of the clock that frames are stamped with; it goes on where a page is loaded anew. */
export function clock() {
  return (performance.timeOrigin + performance.now()) / 1000;
}

/** Draw a frame on a canvas of its size. */
export function draw(canvas, { bitmap, width, height }) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

/** A JPEG picture as a binary message. */
export function packFrame(picture, index, timestamp, width, height) {
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  header.setUint32(0, MAGIC, true);
  header.setUint8(4, VERSION);
  header.setUint8(5, KINDS.indexOf("jpeg"));
  header.setBigUint64(8, BigInt(index), true);
  header.setFloat64(16, timestamp, true);
  header.setUint16(24, width, true);
  header.setUint16(26, height, true);
  header.setUint32(28, picture.size, true);
  return new Blob([header.buffer, picture]);
}

/** A binary message's place and picture, the latter as createImageBitmap takes it. */
export function unpackFrame(buffer) {
  const header = new DataView(buffer);
  if (buffer.byteLength < HEADER_BYTES || header.getUint32(0, true) !== MAGIC) {
    throw new Error("this is no frame");
  }
  const kind = KINDS[header.getUint8(5)];
  const width = header.getUint16(24, true);
  const height = header.getUint16(26, true);
  const data = new Uint8Array(buffer, HEADER_BYTES);
  const picture =
    kind === "raw" ? fromRgb(data, width, height) : new Blob([data], { type: `image/${kind}` });
  const index = Number(header.getBigUint64(8, true));
  return { picture, index, timestamp: header.getFloat64(16, true), width, height };
}

function fromRgb(rgb, width, height) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from];
    rgba[to + 1] = rgb[from + 1];
    rgba[to + 2] = rgb[from + 2];
  }
  return new ImageData(rgba, width, height);
}

function toJpeg(canvas, quality) {
  if (canvas.convertToBlob) return canvas.convertToBlob({ type: "image/jpeg", quality });
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
}
