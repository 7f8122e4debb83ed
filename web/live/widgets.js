// The widgets of the Live node, which steer its stream while it runs.

import { api } from "../../../scripts/api.js";
import { chain } from "./dom.js";
import { findNode, sourceOf } from "./graph.js";

const LOOK = 200; // milliseconds between two looks at a subgraph's widgets
const DRAWN = 1000; // milliseconds within which ComfyUI draws a seed for the next run
const TYPING = 400; // milliseconds after the last key
// What a widget's value is to the stream; all others need a new run.
const LIVE = {
  prompt: (value) => ({ prompt: value }),
  negative: (value) => ({ negative: value }),
  steps: (value) => ({ steps: value }),
  denoise: (value) => ({ strength: value }),
  seed: (value) => ({ seed: value }),
  similarity: (value) => ({ similarity: value }),
  max_rate: (value) => ({ rate: value || null }),
  lora_strength: (value) => ({ lora_strength: value }),
};
const GAP = 4; // pixels that litegraph leaves below a widget
const TYPED = new Set(["prompt", "negative"]);

/**
 * Tell of the changes of a node's widgets: onLive(name) of those that the stream can take, when the
 * typing pauses; onOther(label) of those that it cannot; onQueued(name) of a seed that ComfyUI has
 * drawn for the next run.
 */
export function watchWidgets(node, { onLive, onOther, onQueued }) {
  for (const widget of node.widgets) {
    const { name, linkedWidgets = [] } = widget;
    const isQueueing = watchQueue(linkedWidgets);
    const tell = TYPED.has(name) ? later(onLive) : onLive;
    const onChange = () => {
      if (!(name in LIVE)) onOther(widget.label ?? name);
      else if (isQueueing()) onQueued(name);
      else tell(name);
    };
    if (!isControl(node, widget)) chain(widget, "callback", onChange);
  }
}

/**
 * Changes for the stream, of widgets whose values are not those that it has; it has them now. path:
 * the node's id in the prompt.
 */
export function news(path, values, names = Object.keys(LIVE)) {
  const changes = {};
  for (const name of names.filter((each) => each in LIVE)) {
    const widget = sourceOf(path, name);
    if (!widget) continue; // a node's output overrules it
    const { value } = widget;
    if (values.has(name) && values.get(name) !== value) Object.assign(changes, LIVE[name](value));
    values.set(name, value);
  }
  return changes;
}

/**
 * Look again and again for changes of widgets that stand for those of a node elsewhere, as on a
 * subgraph: whoever sets those tells the node nothing. onLive(name) and onQueued(name) as in
 * watchWidgets. Gives what ends it.
 */
export function watchPromoted(path, { onLive, onQueued }) {
  const seen = new Map();
  const tellTyped = later(onLive);
  let queued = 0;
  const listen = () => (queued = Date.now());
  const look = () => {
    for (const name of Object.keys(LIVE)) {
      const widget = sourceOf(path, name);
      if (!widget || widget === findNode(path).widgets.find((own) => own.name === name)) continue;
      const before = seen.get(name);
      seen.set(name, widget.value);
      if (before === undefined || before === widget.value) continue;
      if (name === "seed" && Date.now() - queued < DRAWN) onQueued(name);
      else if (TYPED.has(name)) tellTyped(name);
      else onLive(name);
    }
  };
  api.addEventListener("promptQueued", listen);
  const timer = setInterval(look, LOOK);
  return () => {
    clearInterval(timer);
    api.removeEventListener("promptQueued", listen);
  };
}

/** The widgets that are rarely needed; they take no room while they are folded. */
export function rareWidgets(node) {
  return node.widgets.filter(({ options, advanced }) => advanced || options?.advanced);
}

/** Whether ComfyUI hides rarely needed widgets by itself: Nodes 2.0 does, and front-ends that say so
 * of the widget.
 */
export function hostFolds(widgets) {
  return Boolean(globalThis.LiteGraph?.vueNodesMode) || widgets.some(({ advanced }) => advanced);
}

export function fold(node, widgets, isFolded) {
  for (const widget of widgets) {
    widget.hidden = isFolded;
    if (isFolded) widget.computeSize = () => [0, -GAP];
    else delete widget.computeSize;
  }
  const [width, height] = node.size;
  node.setSize([width, isFolded ? height : Math.max(height, node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

/** Whether a widget is "control after generate" of another. */
function isControl(node, widget) {
  return node.widgets.some(({ linkedWidgets }) => linkedWidgets?.includes(widget));
}

/** Call a function when nothing more has come for a while. */
function later(then) {
  let timer = 0;
  return (name) => {
    clearTimeout(timer);
    timer = setTimeout(() => then(name), TYPING);
  };
}

/** Whether these widgets are changing their widget as Run was pressed. */
function watchQueue(controls) {
  let queueing = false;
  for (const control of controls) {
    for (const name of ["beforeQueued", "afterQueued"]) {
      const change = control[name];
      control[name] = function (...given) {
        queueing = true;
        change?.apply(this, given);
        queueing = false;
      };
    }
  }
  return () => queueing;
}
