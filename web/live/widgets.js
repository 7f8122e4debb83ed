// The widgets of the Live node, which steer its stream while it runs.

import { chain } from "./dom.js";

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

/** Changes for the stream, of widgets whose values are not those that it has; it has them now. */
export function news(node, values, names = Object.keys(LIVE)) {
  const changes = {};
  for (const { name, value } of node.widgets) {
    if (!(name in LIVE) || !names.includes(name) || isLinked(node, name)) continue;
    if (values.has(name) && values.get(name) !== value) Object.assign(changes, LIVE[name](value));
    values.set(name, value);
  }
  return changes;
}

/**
 * The widgets that are rarely needed, where the front-end does not hide them by itself: null where it
 * does. They take no room while they are folded.
 */
export function rareWidgets(node) {
  if (node.widgets.some(({ advanced }) => advanced)) return null;
  return node.widgets.filter(({ options }) => options?.advanced);
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

/** Whether a widget is overruled by a link. */
function isLinked(node, name) {
  return node.inputs?.some(({ widget, link }) => widget?.name === name && link != null);
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
