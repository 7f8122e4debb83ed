// Nodes of the graph that is open.

import { app } from "../../../scripts/app.js";

const NO_ID = "00000000-0000-0000-0000-000000000000"; // of a graph that was cleared

/** What tells the open workflow from all others; it stays when it is saved under another name. */
export function workflowId() {
  const { id } = rootGraph();
  return id === NO_ID ? app.extensionManager.workflow.activeWorkflow?.path : id;
}

/** The node of an id as prompts have it; one in a subgraph has the ids of all around it: 5:3. */
export function findNode(path) {
  const ids = String(path).split(":");
  const last = ids.pop();
  const graph = ids.reduce((outer, id) => outer?.getNodeById(id)?.subgraph, rootGraph());
  return graph?.getNodeById(last) ?? null;
}

function rootGraph() {
  return app.rootGraph ?? app.graph;
}
