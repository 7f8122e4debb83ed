// What the pack adds to ComfyUI's page: a settings section, commands, the report of the Plan node,
// and the panels of the live nodes. Its words are those of locales/, by the id.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { OutputPanel } from "./live/output.js";
import { CameraPanel, ProgramPanel } from "./live/source.js";
import { LiveStreams } from "./live/streams.js";
import { translate, words } from "./words.js";

const REPORT_HEIGHT = 190;
const REPORT_WIDTH = 400;
const PANIC_KEY = "F9";
const PANELS = {
  Live2DiffLive: OutputPanel,
  Live2DiffBrowserCamera: CameraPanel,
  Live2DiffSocketSource: ProgramPanel,
};

const streams = new LiveStreams();

async function closeSessions() {
  const { toast } = app.extensionManager;
  try {
    const response = await api.fetchApi("/live2diff/sessions/close", { method: "POST" });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const { closed: count } = await response.json();
    toast.add({ severity: "success", summary: `${words.closed} ${count}`, life: 4000 });
  } catch (error) {
    const detail = String(error.message ?? error);
    toast.add({ severity: "error", summary: words.notClosed, detail });
  }
}

/** What the server says of a node beside its results; `notice` is an id of words.js. */
function showNotice({ detail }) {
  const title = app.graph?.getNodeById?.(detail.node)?.title ?? "Live2Diff";
  app.extensionManager.toast.add({
    severity: "warn",
    summary: title,
    detail: words[detail.notice],
    life: 10000,
  });
}

function showReport(node) {
  const area = document.createElement("textarea");
  area.className = "comfy-multiline-input";
  area.readOnly = true;
  const widget = node.addDOMWidget("report_text", "live2diff_report", area, {
    serialize: false, // not into the prompt
    hideOnZoom: false,
    hideInPanel: true, // or the panel of properties would take the element out of its node
    getMinHeight: () => REPORT_HEIGHT,
    getValue: () => area.value,
    setValue: (text) => {
      area.value = text;
    },
  });
  widget.serialize = false; // nor into the workflow
  node.setSize([Math.max(node.size[0], REPORT_WIDTH), node.computeSize()[1]]);

  const { onExecuted } = node;
  node.onExecuted = function (output) {
    onExecuted?.call(this, output);
    widget.value = output.text.join("\n");
  };
}

/** ComfyUI's own keys do nothing while a text is typed, and that is where hands are in a show. */
function panicWhileTyping(event) {
  const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey;
  if (event.key !== PANIC_KEY || !isPlain || event.repeat) return;
  if (!streams.areRunning || !event.target.matches?.("input, textarea")) return;
  event.preventDefault();
  streams.panic();
}

function addStyles() {
  const href = new URL("./live/live.css", import.meta.url).href;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
}

app.registerExtension({
  name: "Live2Diff",
  settings: [
    {
      id: "Live2Diff.DevicePolicy",
      category: ["Live2Diff", "Device", "DevicePolicy"],
      name: "Device that streams run on",
      tooltip:
        "auto: the device that ComfyUI uses. cpu: the processor, which leaves the graphics card to other models. Takes effect at the next run.",
      type: "combo",
      options: ["auto", "cpu"],
      defaultValue: "auto",
    },
    {
      id: "Live2Diff.SessionLimit",
      category: ["Live2Diff", "Sessions", "SessionLimit"],
      name: "Sessions open at once",
      tooltip:
        "Each session holds the memory of its stream. One more than this closes the one that has not been used for longest.",
      type: "slider",
      attrs: { min: 1, max: 16, step: 1 },
      defaultValue: 4,
    },
    {
      id: "Live2Diff.RemoteVideo",
      category: ["Live2Diff", "Sources", "RemoteVideo"],
      name: "Video from remote addresses",
      tooltip:
        "Lets Live2Diff Video Source open addresses of the internet. Whoever can queue a graph can make this server connect to them.",
      type: "boolean",
      defaultValue: false,
    },
    {
      id: "Live2Diff.PrivateVideo",
      category: ["Live2Diff", "Sources", "PrivateVideo"],
      name: "Video from private addresses",
      tooltip:
        "Lets Live2Diff Video Source open addresses of your own network, such as a camera's. Whoever can queue a graph can make this server connect to them.",
      type: "boolean",
      defaultValue: false,
    },
  ],
  commands: [
    {
      id: "Live2Diff.CloseSessions",
      label: "Close Live2Diff sessions",
      icon: "pi pi-times-circle",
      function: closeSessions,
    },
    {
      id: "Live2Diff.Panic",
      label: "Panic: card on or off in all live streams",
      icon: "pi pi-exclamation-triangle",
      function: () => streams.panic(),
    },
    {
      id: "Live2Diff.StopLive",
      label: "Stop live streams",
      icon: "pi pi-stop-circle",
      function: () => streams.stop(),
    },
    {
      id: "Live2Diff.Token",
      label: "Enter the token of this server",
      icon: "pi pi-key",
      function: () => streams.unlock(),
    },
  ],
  keybindings: [{ combo: { key: PANIC_KEY }, commandId: "Live2Diff.Panic" }],
  menuCommands: [
    {
      path: ["Extensions", "Live2Diff"],
      commands: [
        "Live2Diff.Panic",
        "Live2Diff.StopLive",
        "Live2Diff.Token",
        "Live2Diff.CloseSessions",
      ],
    },
  ],
  async init() {
    addStyles();
    addEventListener("keydown", panicWhileTyping, { capture: true });
    streams.listen();
    api.addEventListener("live2diff.notice", showNotice);
    await translate();
  },
  nodeCreated(node) {
    if (node.comfyClass === "Live2DiffPlan") showReport(node);
    const Panel = PANELS[node.comfyClass];
    if (Panel) node.live2diff = new Panel(node, streams);
  },
});
