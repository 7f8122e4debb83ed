// What the live nodes' panels are made of.

import { app } from "../../../scripts/app.js";

const WIDTH = 400;
const MARGIN = 10; // of a widget
const MIDDLE = { button: 1, buttons: 4 }; // of the mouse

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function button(label, tip, onclick) {
  return element("button", { type: "button", textContent: label, title: tip, onclick });
}

/** Show a camera in a video element, null for none; playing may begin later. */
export function watch(video, camera) {
  const media = camera?.media ?? null;
  video.classList.toggle("live2diff-mirror", Boolean(camera?.mirror));
  if (video.srcObject === media) return;
  video.srcObject = media;
  if (media) video.play().catch(() => {}); // closed again
}

/** Copy a text; whether the browser lets pages of this address do so. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Show an element in a node, at least so high, and keep it out of prompt and workflow. */
export function addPanel(node, name, root, height) {
  root.classList.add("live2diff");
  root.style.minHeight = `${height - 2 * MARGIN}px`;
  letCanvasMove(root);
  const widget = node.addDOMWidget(name, "live2diff_panel", root, {
    serialize: false, // not into the prompt
    hideOnZoom: false,
    hideInPanel: true, // or the panel of properties would take the element out of its node
    getMinHeight: () => height,
  });
  widget.serialize = false; // nor into the workflow
  node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]]);
}

/** Call a function after what a node, or a widget, calls at this name already. */
export function chain(target, name, then) {
  const before = target[name];
  target[name] = function (...given) {
    const result = before?.apply(this, given);
    then(...given);
    return result;
  };
}

/** Let the wheel and the middle button move the graph, as they do over its other nodes. */
function letCanvasMove(root) {
  const pass = (name, wanted) => (event) => {
    if (!globalThis.LiteGraph?.vueNodesMode && wanted(event)) app.canvas[name](event);
  };
  const isMiddle = ({ button: pressed }) => pressed === MIDDLE.button;
  root.addEventListener("wheel", pass("processMouseWheel", () => true));
  root.addEventListener("pointerdown", pass("processMouseDown", isMiddle));
  root.addEventListener("pointermove", pass("processMouseMove", (e) => e.buttons & MIDDLE.buttons));
  root.addEventListener("pointerup", pass("processMouseUp", isMiddle));
}
