// A stream's picture where its node is not seen, in App mode and inside a subgraph: shown as ComfyUI
// shows a node's preview, there on the subgraph's node.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const GAP = 100; // milliseconds between two previews
const QUALITY = 0.85; // of JPEG

/** Whether a node is out of sight: the workflow is shown as an app, or another graph of it is open. */
function isHidden(node) {
  const workflow = app.extensionManager.workflow?.activeWorkflow;
  if ((workflow?.activeMode ?? workflow?.initialMode) === "app") return true;
  return Boolean(app.canvas?.graph) && node.graph !== app.canvas.graph;
}

export class Preview {
  #last = 0;
  #isBusy = false;

  #node;

  constructor(node) {
    this.#node = node;
  }

  /** Show what is on a canvas, if the node is out of sight. run: ids of the {node, prompt}. */
  show(canvas, { node, prompt }) {
    if (this.#isBusy || performance.now() - this.#last < GAP || !isHidden(this.#node)) return;
    this.#isBusy = true;
    this.#last = performance.now();
    const send = (blob) => {
      this.#isBusy = false;
      if (!blob) return; // the canvas is gone
      const ids = { nodeId: node, displayNodeId: node, parentNodeId: node, realNodeId: node };
      api.dispatchCustomEvent("b_preview_with_metadata", { blob, ...ids, jobId: prompt });
    };
    canvas.toBlob(send, "image/jpeg", QUALITY);
  }
}
