// What the pages of Live2Diff's server share with ComfyUI's: loaded when a stream needs it, so that
// a server which refuses it breaks nothing else.

import { api } from "../../../scripts/api.js";

/** LiveSocket, Camera and what belongs to them. Rejects where the server does not give them. */
export async function loadScripts() {
  const load = (name) => import(api.fileURL(`/live2diff/page/${name}`));
  const [live, camera] = await Promise.all([load("live.js"), load("camera.js")]);
  return { ...live, ...camera };
}
