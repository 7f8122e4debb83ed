// Nodes of the graph that is open.

import { app } from "../../../scripts/app.js";

const PRIMITIVE = "PrimitiveNode"; // a value of the page, which no prompt has as a node
const NO_ID = "00000000-0000-0000-0000-000000000000"; // of a graph that was cleared

/** What tells the open workflow from all others; it stays when it is saved under another name. */
export function workflowId() {
  const { id } = rootGraph();
  return id === NO_ID ? app.extensionManager.workflow.activeWorkflow?.path : id;
}

/** The node of an id as prompts have it; one in a subgraph has the ids of all around it: 5:3. */
export function findNode(path) {
  return nodesAlong(path).at(-1) ?? null;
}

/**
 * The widget that gives an input of a node its value: its own, or, where that is linked to an input
 * of the subgraph around it, the one that stands for it there. null where a node's output gives it.
 */
export function sourceOf(path, name) {
  const nodes = nodesAlong(path);
  const node = nodes.pop();
  return node ? findSource(node, nodes, name) : null;
}

function nodesAlong(path) {
  const found = [];
  let graph = rootGraph();
  for (const id of String(path).split(":")) {
    found.push(graph?.getNodeById(id));
    graph = found.at(-1)?.subgraph;
  }
  return found.at(-1) ? found : [];
}

function findSource(node, around, name) {
  const input = node.inputs?.find(({ widget }) => widget?.name === name);
  if (input?.link == null) return node.widgets?.find((widget) => widget.name === name) ?? null;
  const link = node.graph.getLink(input.link);
  if (link?.origin_id === node.graph.inputNode?.id) {
    const outer = around.at(-1);
    const place = outer?.inputs?.[link.origin_slot];
    return place?.widget ? findSource(outer, around.slice(0, -1), place.widget.name) : null;
  }
  const origin = node.graph.getNodeById(link?.origin_id);
  return origin?.type === PRIMITIVE ? origin.widgets[0] : null;
}

function rootGraph() {
  return app.rootGraph ?? app.graph;
}
