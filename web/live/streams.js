// All live streams of this page.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { words } from "../words.js";
import { Live } from "./stream.js";

const ENDS = ["execution_success", "execution_error", "execution_interrupted"];
const SETTLED = 300; // milliseconds until a graph that is being replaced is whole

/** Begins, finds and ends them as the server tells. */
export class LiveStreams {
  #streams = new Map(); // by id
  #panels = new Set(); // of the open graph that show a stream
  #timer = 0;

  listen() {
    api.addEventListener("live2diff.stream", ({ detail }) => this.#found(detail));
    api.addEventListener("live2diff.ended", ({ detail }) => this.#ended(detail));
    api.addEventListener("promptQueued", () => this.#tellPanels(words.queued));
    api.addEventListener("execution_start", () => this.#tellPanels(words.starting));
    for (const end of ENDS) api.addEventListener(end, () => this.#tellPanels(null));
  }

  /** A panel that shows a stream, until it is gone. */
  add(panel) {
    this.#panels.add(panel);
  }

  remove(panel) {
    this.#panels.delete(panel);
  }

  /** What panels without a stream say; null for nothing special. */
  #tellPanels(text) {
    for (const panel of this.#panels) panel.expect(text);
  }

  /** Nodes came or went. */
  settleSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      for (const live of [...this.#streams.values()]) live.settle();
    }, SETTLED);
  }

  get areRunning() {
    return this.#streams.size > 0;
  }

  /** Panic on all of them, or off where all of them are in panic. */
  panic() {
    const streams = this.#running();
    const on = !streams.every(({ toggles }) => toggles.has("panic"));
    for (const live of streams) live.toggle("panic", on);
  }

  stop() {
    for (const live of this.#running()) live.stop();
  }

  /** Ask for the server's token, which becomes a cookie, and connect those that it kept out. */
  async unlock() {
    const { dialog, toast } = app.extensionManager;
    const token = await dialog.prompt({ title: "Live2Diff", message: words.token });
    if (!token) return;
    const address = `/live2diff/?token=${encodeURIComponent(token.trim())}`;
    const response = await fetch(api.fileURL(address));
    const summary = response.ok ? words.tokenTaken : words.wrongToken;
    toast.add({ severity: response.ok ? "success" : "error", summary, life: 4000 });
    if (!response.ok) return;
    for (const live of this.#streams.values()) if (live.isLocked) live.connect();
  }

  #running() {
    const streams = [...this.#streams.values()];
    const { toast } = app.extensionManager;
    if (!streams.length) toast.add({ severity: "info", summary: words.nothingRuns, life: 4000 });
    return streams;
  }

  /** Told every two seconds, for a page that was loaded anew. */
  #found(about) {
    const known = this.#streams.get(about.stream);
    const live = known ?? new Live(about, () => this.#forget(live));
    this.#streams.set(about.stream, live);
    live.settle();
    if (!known) live.begin();
  }

  #forget(live) {
    for (const [id, kept] of this.#streams) if (kept === live) this.#streams.delete(id);
  }

  #ended({ stream, text }) {
    this.#streams.get(stream)?.end(text);
  }
}
