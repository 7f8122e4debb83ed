// A stream's picture in App mode, where no node is seen: shown as ComfyUI shows a node's preview.

import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const GAP = 100; // milliseconds between two previews
const QUALITY = 0.85; // of JPEG

/** Whether the open workflow is shown as an app. */
export function isApp() {
  const workflow = app.extensionManager.workflow?.activeWorkflow;
  return (workflow?.activeMode ?? workflow?.initialMode) === "app";
}

export class Preview {
  #last = 0;
  #isBusy = false;

  /** Show what is on a canvas as the preview of a node. about: {node, prompt}, ids. */
  show(canvas, { node, prompt }) {
    if (!isApp() || this.#isBusy || performance.now() - this.#last < GAP) return;
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
