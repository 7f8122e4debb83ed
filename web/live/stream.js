// A live stream that this page shows, steers and, where it is its camera, feeds.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { answerText, fill, words } from "../words.js";
import { Delays } from "./delays.js";
import { findNode, workflowId } from "./graph.js";
import { loadScripts } from "./scripts.js";

const GONE = 404;
const FILMED = ["camera", "screen"];
// Those of the connection, as words has them.
const STATES = {
  connecting: "connecting",
  open: "starting",
  waiting: "waiting",
  closed: "noConnection",
};
// Events that tell nothing new at the end.
const QUIET = new Set(["ended", "stopped"]);

/**
 * about: what the server tells of it, {node, prompt, stream, key, view, feed}. onEnd(): it is over.
 *
 * Its panel is that of its node, as long as that is in the open graph; status is what panels show:
 * {state, figures, message, trouble: {text, label, act}}.
 */
export class Live {
  status = { state: words.connecting, figures: null, message: "", trouble: null };
  toggles = new Set(); // of pause, freeze, passthrough, panic: those that are on
  values = new Map(); // of the node's widgets, as the stream has them
  camera = null;
  #about;
  #onEnd;
  #panels = {}; // output, feed
  #seen = []; // those of them that were in the graph
  #home = null; // the id of their workflow
  #scripts = null;
  #socket = null;
  #shape = {}; // that the stream wants
  #delays = new Delays();
  #since = 0; // by the clock of frames, when it was connected
  #over = false;
  #gone = false;

  constructor(about, onEnd) {
    this.#about = about;
    this.#onEnd = onEnd;
  }

  /** What ComfyUI calls the run: ids of its node and its prompt. */
  get run() {
    return { node: this.#about.node, prompt: this.#about.prompt };
  }

  /** The id of its node as prompts have it. */
  get path() {
    return this.#about.node;
  }

  get films() {
    return FILMED.includes(this.#about.feed?.shows);
  }

  /** Whether it waits for the server's token. */
  get isLocked() {
    return this.status.trouble?.act === askForToken;
  }

  /** What a program needs to feed it. */
  get access() {
    const socket = new URL(api.fileURL("/live2diff/socket"), location.href);
    socket.protocol = socket.protocol.replace("http", "ws");
    return { address: socket.href, stream: this.#about.stream, key: this.#about.key };
  }

  /** Address of the clean page. */
  get viewAddress() {
    return new URL(api.fileURL(`/live2diff/${this.#about.view}`), location.href).href;
  }

  // ---- its nodes

  /**
   * Find its nodes. Those of a workflow that is not open are left alone, the show goes on; one that
   * is gone from its graph was removed.
   */
  settle() {
    if (this.#over) return;
    const id = workflowId();
    const panels = this.#home === null || this.#home === id ? this.#findPanels() : null;
    this.#show(panels ?? {});
    if (!panels) return;
    const removed = this.#seen.filter((name) => !panels[name]);
    this.#seen = Object.keys(panels);
    if (panels.output) this.#home = id;
    if (removed.includes("output")) this.stop();
    else if (removed.includes("feed")) this.#loseCamera(this.#cameraTrouble(words.cameraRemoved));
  }

  #findPanels() {
    const { node, feed } = this.#about;
    const output = findNode(node)?.live2diff;
    if (output?.kind !== "output") return {};
    const source = feed && findNode(feed.node)?.live2diff;
    return source?.kind === "feed" ? { output, feed: source } : { output };
  }

  #show(panels) {
    const before = this.#panels;
    this.#panels = panels;
    for (const name of ["output", "feed"]) {
      if (before[name] === panels[name]) continue;
      before[name]?.leave(this);
      panels[name]?.join(this);
    }
  }

  #tell(news) {
    Object.assign(this.status, news);
    this.render();
  }

  render() {
    for (const panel of Object.values(this.#panels)) panel.render();
  }

  // ---- its connection

  async begin() {
    this.#tell({ trouble: null });
    try {
      this.#scripts = await loadScripts();
    } catch (error) {
      const text = `${words.noPage} ${error.message}`;
      this.#tell({ trouble: { text, label: words.tryAgain, act: () => this.begin() } });
      return;
    }
    if (!this.#over) this.connect();
  }

  connect() {
    const { stream, key } = this.#about;
    this.#socket?.close();
    this.#tell({ trouble: null });
    this.#socket = new this.#scripts.LiveSocket({
      role: this.films ? "source" : "controller",
      stream,
      key,
      frames: true,
      onState: (state) => this.#tell({ state: words[STATES[state]], figures: null }),
      onStream: (about) => this.#open(about),
      onFrame: (frame) => this.#draw(frame),
      onStatistics: (figures) => this.#count(figures),
      onAnswer: (answer) => this.#tell({ message: answerText(answer) }),
      onEvent: (event) => this.#hear(event),
      onError: (error) => this.#fail(error),
    });
    this.camera?.feed(this.#socket);
    this.#socket.connect();
  }

  #open({ width, height }) {
    this.#shape = { width, height };
    this.#since = this.#scripts.clock();
    this.camera?.cut(this.#shape);
    if (this.films && !this.camera) this.film();
    for (const name of this.toggles) this.steer({ [name]: true });
  }

  #draw(frame) {
    const seconds = this.#scripts.clock() - frame.timestamp;
    if (frame.timestamp > this.#since) this.#delays.add(frame.index, seconds);
    if (this.#panels.output) this.#panels.output.draw(frame, this.#scripts.draw);
    else frame.bitmap.close();
  }

  #count(figures) {
    const latency = this.films ? this.#delays.percentiles : figures.stages.total;
    const state = words[figures.state] ?? figures.state;
    this.#tell({ state, figures: { ...figures, latency } });
    if (figures.error) this.#tell({ message: figures.error });
  }

  #hear({ event, message, frame }) {
    if (event === "changed") this.#tell({ message: fill(words.fromFrame, frame) });
    else if (!QUIET.has(event)) this.#tell({ message: `${event}: ${message}` });
  }

  #fail({ code, message }) {
    const troubles = {
      forbidden: { text: words.needsToken, label: words.enterToken, act: askForToken },
      replaced: { text: words.replaced, label: words.reconnect, act: () => this.connect() },
      unknown_version: { text: message },
    };
    if (code === "no_such_stream") this.end();
    else if (code in troubles) this.#loseCamera(troubles[code]);
    else this.#tell({ message });
  }

  // ---- its camera

  /** Open the camera anew, or take over the one that is being tested. */
  async film() {
    const tested = this.#panels.feed?.lend();
    if (tested) this.camera?.close();
    const camera = tested ?? this.camera ?? new this.#scripts.Camera();
    this.camera = camera;
    camera.onEnded = () => this.#loseCamera(this.#cameraTrouble(words.cameraGone));
    camera.cut(this.#shape);
    camera.feed(this.#socket);
    this.#tell({ trouble: null });
    try {
      if (!tested) await camera.open(this.#wish);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#loseCamera(this.#cameraTrouble(this.#scripts.advise(error, words)));
    }
    this.render();
  }

  /** What the widgets of its node say by now, or said when the stream began. */
  get #wish() {
    return this.#panels.feed?.wish ?? this.#about.feed;
  }

  #cameraTrouble(text) {
    const isScreen = this.#wish.shows === "screen";
    const label = isScreen ? words.shareScreen : words.tryAgain;
    return { text, label, act: () => this.film() };
  }

  #loseCamera(trouble) {
    this.camera?.close();
    this.camera = null;
    this.#tell({ trouble });
  }

  // ---- what is done with it

  /** Show a message in its panel. */
  say(message) {
    this.#tell({ message });
  }

  /** Change what is being dragged or typed. */
  steer(changes) {
    this.#socket?.steer(changes);
  }

  /** pause, freeze, passthrough or panic. */
  toggle(name, on = !this.toggles.has(name)) {
    if (on) this.toggles.add(name);
    else this.toggles.delete(name);
    this.steer({ [name]: on });
    this.render();
  }

  /** End it on the server. */
  async stop() {
    if (this.#over) return;
    this.#loseCamera(null);
    this.#over = true;
    this.#tell({ state: words.stopping });
    const { stream, key } = this.#about;
    try {
      const address = api.fileURL(`/live2diff/streams/${stream}`);
      const headers = { "X-Live2Diff-Key": key };
      const response = await fetch(address, { method: "DELETE", headers, keepalive: true });
      if (!response.ok && response.status !== GONE) throw new Error(await response.text());
    } catch (error) {
      const { toast } = app.extensionManager;
      toast.add({ severity: "error", summary: words.notStopped, detail: error.message });
    }
    this.end();
  }

  /** It is over: let go of everything. text: why. */
  end(text = "") {
    if (this.#gone) return;
    const message = this.#over ? "" : text; // a stream that was stopped needs no reason
    this.#over = this.#gone = true;
    this.#socket?.close();
    this.#socket = null;
    this.#loseCamera(null);
    this.#tell({ state: words.ended, figures: null, message });
    this.#show({});
    this.#onEnd();
  }
}

function askForToken() {
  app.extensionManager.command.execute("Live2Diff.Token");
}
