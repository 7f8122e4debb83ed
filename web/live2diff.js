// What the pack adds to ComfyUI's page: a settings section, one command, and the report of the Plan
// node. Its words are those of locales/, by the id; the English ones here stand in for them.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const REPORT_HEIGHT = 190;
const REPORT_WIDTH = 400;
const WORDS = {
  closed: "Live2Diff sessions closed:",
  notClosed: "Live2Diff sessions could not be closed",
};

async function words() {
  const translations = await api.getCustomNodesI18n();
  const locale = app.extensionManager.setting.get("Comfy.Locale");
  return { ...WORDS, ...translations[locale]?.live2diff };
}

async function closeSessions() {
  const { closed, notClosed } = await words();
  const { toast } = app.extensionManager;
  try {
    const response = await api.fetchApi("/live2diff/sessions/close", { method: "POST" });
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    const { closed: count } = await response.json();
    toast.add({ severity: "success", summary: `${closed} ${count}`, life: 4000 });
  } catch (error) {
    toast.add({ severity: "error", summary: notClosed, detail: String(error.message ?? error) });
  }
}

function showReport(node) {
  const area = document.createElement("textarea");
  area.className = "comfy-multiline-input";
  area.readOnly = true;
  const widget = node.addDOMWidget("report_text", "live2diff_report", area, {
    serialize: false, // not into the prompt
    hideOnZoom: false,
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
  ],
  commands: [
    {
      id: "Live2Diff.CloseSessions",
      label: "Close Live2Diff sessions",
      icon: "pi pi-times-circle",
      function: closeSessions,
    },
  ],
  menuCommands: [{ path: ["Extensions", "Live2Diff"], commands: ["Live2Diff.CloseSessions"] }],
  nodeCreated(node) {
    if (node.comfyClass === "Live2DiffPlan") showReport(node);
  },
});
