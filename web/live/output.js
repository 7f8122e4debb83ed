// The panel of the Live node: the picture, how the stream does, and its buttons.

import { app } from "../../../scripts/app.js";
import { fill, words } from "../words.js";
import { addPanel, button, chain, copy, element, watch } from "./dom.js";
import { Preview } from "./preview.js";
import { fold, hostFolds, news, rareWidgets, watchPromoted, watchWidgets } from "./widgets.js";

const HEIGHT = 380;
const RENDERER = "Comfy.VueNodes.Enabled"; // a setting
const TOGGLES = ["pause", "freeze", "passthrough", "panic"];
const ALWAYS = new Set(["fullScreen", "settings"]); // also while no stream runs

export class OutputPanel {
  kind = "output";
  #node;
  #live = null;
  #canvas = element("canvas", { width: 16, height: 9 });
  #own = element("video", { muted: true, playsInline: true });
  #showsOwn = true;
  #preview;
  #rare;
  #isFolded = true;
  #onRenderer = () => setTimeout(() => this.#fold());
  #unwatch = () => {};
  #expected = null; // while a prompt of this page waits or begins
  #state = element("p", { className: "live2diff-state", title: words.latencyTip });
  #message = element("p", { className: "live2diff-message", role: "status" });
  #trouble = element("p", { className: "live2diff-trouble", role: "alert", hidden: true });
  #shownTrouble = null;
  #buttons;

  constructor(node, streams) {
    this.#node = node;
    this.#preview = new Preview(node);
    this.#rare = rareWidgets(node);
    this.#buttons = this.#makeButtons();
    watchWidgets(node, {
      onLive: (name) => this.#steer([name]),
      onOther: (label) => this.#live?.say(fill(words.nextRun, label)),
      onQueued: (name) => this.#know(name),
    });
    this.#fold();
    this.#add();
    streams.add(this);
    showOnlyRecordings(node);
    app.ui.settings.addEventListener(`${RENDERER}.change`, this.#onRenderer);
    chain(node, "onRemoved", () => {
      app.ui.settings.removeEventListener(`${RENDERER}.change`, this.#onRenderer);
      streams.remove(this);
      streams.settleSoon();
    });
    streams.settleSoon();
    this.render();
  }

  join(live) {
    this.#live = live;
    this.#expected = null;
    this.#steer();
    this.#unwatch = watchPromoted(live.path, {
      onLive: (name) => this.#steer([name]),
      onQueued: (name) => this.#know(name),
    });
    this.render();
  }

  leave(live) {
    if (this.#live !== live) return;
    this.#live = null;
    this.#unwatch();
    this.#own.srcObject = null;
    this.render(live.status);
  }

  /** Say what is to come before there is a stream: words, null for nothing. */
  expect(text) {
    if (this.#live || text === this.#expected) return;
    this.#expected = text;
    this.render();
  }

  draw(frame, drawOn) {
    drawOn(this.#canvas, frame);
    this.#preview.show(this.#canvas, this.#live.run);
  }

  /** Show how the stream does; without one, what was last said of it. */
  render(status = this.#live?.status) {
    this.#state.textContent = status ? describe(status) : (this.#expected ?? words.idle);
    if (status) this.#message.textContent = status.message;
    this.#showTrouble(this.#live ? status.trouble : null);
    for (const [name, made] of Object.entries(this.#buttons)) {
      made.disabled = !this.#live && !ALWAYS.has(name);
      if (TOGGLES.includes(name)) press(made, this.#live?.toggles.has(name));
    }
    press(this.#buttons.settings, !this.#isFolded);
    this.#showOwn(this.#live?.camera);
  }

  #add() {
    const { panic, ...others } = this.#buttons;
    const picture = element("div", { className: "live2diff-picture" }, this.#canvas, this.#own);
    const texts = element("div", {}, this.#state, this.#message, this.#trouble);
    const row = element("div", { className: "live2diff-buttons" }, ...Object.values(others), panic);
    addPanel(this.#node, "live", element("div", {}, picture, texts, row), HEIGHT);
  }

  #makeButtons() {
    const toggle = (name) => () => this.#live.toggle(name);
    const acts = {
      stop: () => this.#live.stop(),
      ...Object.fromEntries(TOGGLES.map((name) => [name, toggle(name)])),
      obsLink: () => this.#giveLink(),
      fullScreen: () => this.#canvas.requestFullscreen(),
      ownPicture: () => {
        this.#showsOwn = !this.#showsOwn;
        this.render();
      },
      settings: () => {
        this.#isFolded = !this.#isFolded;
        this.#fold();
        this.render();
      },
    };
    const make = ([name, act]) => [name, button(words[name], words[`${name}Tip`], act)];
    const buttons = Object.fromEntries(Object.entries(acts).map(make));
    buttons.panic.classList.add("live2diff-panic");
    return buttons;
  }

  #showOwn(camera) {
    const { ownPicture } = this.#buttons;
    ownPicture.disabled = !camera?.media;
    press(ownPicture, this.#showsOwn && !ownPicture.disabled);
    this.#own.hidden = !camera?.media || !this.#showsOwn;
    watch(this.#own, camera);
  }

  /** A button that is replaced while it is pressed would hear no click. */
  #showTrouble(trouble) {
    if (trouble === this.#shownTrouble) return;
    this.#shownTrouble = trouble;
    this.#trouble.hidden = !trouble;
    this.#trouble.replaceChildren(trouble?.text ?? "");
    if (trouble?.act) this.#trouble.append(" ", button(trouble.label, "", trouble.act));
  }

  async #giveLink() {
    const live = this.#live;
    const isCopied = await copy(live.viewAddress);
    live.say(isCopied ? `${live.viewAddress} (${words.copied})` : live.viewAddress);
  }

  /** Tell the stream what the widgets, or some of them, say that it does not know yet. */
  #steer(names) {
    if (!this.#live) return;
    const changes = news(this.#live.path, this.#live.values, names);
    if (Object.keys(changes).length) this.#live.steer(changes);
  }

  /** A value for the next run, which changes nothing in this one. */
  #know(name) {
    if (this.#live) news(this.#live.path, this.#live.values, [name]);
  }

  /** Fold the rarely needed widgets, where ComfyUI does not do so itself. */
  #fold() {
    const isHosts = hostFolds(this.#rare);
    fold(this.#node, this.#rare, this.#isFolded && !isHosts);
    this.#buttons.settings.hidden = isHosts;
  }
}

/** The last picture is in the panel already: of a node's results only its recording is shown. */
function showOnlyRecordings(node) {
  let isRecording = false;
  chain(node, "onExecuted", (output) => {
    isRecording = Boolean(output?.animated?.[0]);
  });
  Object.defineProperty(node, "hideOutputImages", { get: () => !isRecording });
  const { onDrawBackground } = node;
  node.onDrawBackground = function (...given) {
    if (isRecording) onDrawBackground?.apply(this, given);
  };
}

function press(made, isOn) {
  made.setAttribute("aria-pressed", String(Boolean(isOn)));
}

function describe({ state, figures }) {
  if (!figures) return state;
  const { fps_in, fps_out, latency, dropped_total, repeated } = figures;
  const parts = [state, fill(words.rates, fps_in.toFixed(1), fps_out.toFixed(1))];
  const [p50, p95] = [latency?.p50, latency?.p95].map((time) => time?.toFixed(0));
  if (latency) parts.push(fill(words.latency, `${p50}/${p95}`));
  parts.push(fill(words.dropped, dropped_total));
  if (repeated) parts.push(fill(words.saved, repeated));
  return parts.join(" · ");
}
