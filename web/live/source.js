// The panels of the sources that this page, or a program, feeds.

import { fill, words } from "../words.js";
import { addPanel, button, chain, copy, element, watch } from "./dom.js";
import { loadScripts } from "./scripts.js";

const CAMERA_HEIGHT = 240;
const PROGRAM_HEIGHT = 130;
const WIDGETS = ["shows", "device", "rate", "mirror"];

/** The panel of the camera's node: a list of cameras, a test, and what the camera sees. */
export class CameraPanel {
  kind = "feed";
  #node;
  #live = null;
  #test = null; // the camera while it is tested
  #cameras = [];
  #video = element("video", { muted: true, playsInline: true });
  #list = element("select", { title: words.chooseCamera });
  #button = button(words.testCamera, "", () => (this.#test ? this.#endTest() : this.#beginTest()));
  #said = element("p", { className: "live2diff-message", role: "status" });

  constructor(node, streams) {
    this.#node = node;
    this.#add();
    this.#watchWidgets();
    chain(node, "onConfigure", () => this.render());
    chain(node, "onRemoved", () => {
      this.#endTest();
      streams.settleSoon();
    });
    streams.settleSoon();
    this.#say(navigator.mediaDevices ? words.cameraOff : words.cameraInsecure);
    this.render();
  }

  /** What the widgets say. */
  get wish() {
    return Object.fromEntries(WIDGETS.map((name) => [name, this.#widget(name).value]));
  }

  /** The camera that is being tested, for a stream, to which it belongs from now on. */
  lend() {
    const camera = this.#test;
    this.#test = null;
    if (camera?.media) return camera;
    camera?.close(); // it is still being opened
    return null;
  }

  join(live) {
    this.#live = live;
    this.render();
  }

  leave(live) {
    if (this.#live !== live) return;
    this.#live = null;
    this.#say(words.cameraOff);
    this.render();
  }

  render() {
    const camera = this.#camera;
    const isNew = camera?.media && camera.media !== this.#video.srcObject;
    watch(this.#video, camera);
    this.#button.textContent = this.#test ? words.stopTest : words.testCamera;
    this.#button.disabled = Boolean(this.#live);
    if (camera?.media) this.#say(words.cameraRuns);
    else if (this.#live) this.#say(this.#live.status.trouble?.text ?? words.cameraOff);
    this.#fillList();
    if (isNew) this.#look(); // labels are known from now on
  }

  get #camera() {
    return this.#live ? this.#live.camera : this.#test;
  }

  #widget(name) {
    return this.#node.widgets.find((widget) => widget.name === name);
  }

  #say(text) {
    this.#said.textContent = text;
  }

  #add() {
    const picture = element("div", { className: "live2diff-picture" }, this.#video);
    const row = element("div", { className: "live2diff-row" }, this.#list, this.#button);
    addPanel(this.#node, "camera", element("div", {}, row, picture, this.#said), CAMERA_HEIGHT);
  }

  // ---- the test

  async #beginTest() {
    try {
      const { Camera, advise } = await loadScripts();
      await this.#open(new Camera(), advise);
    } catch (error) {
      this.#endTest(`${words.noPage} ${error.message}`);
    }
  }

  async #open(camera, advise) {
    this.#endTest();
    this.#test = camera;
    camera.onEnded = () => this.#endTest(words.cameraGone);
    try {
      await camera.open(this.wish);
    } catch (error) {
      if (camera === this.#test) this.#endTest(advise(error, words));
    }
    this.render();
  }

  #endTest(text = words.cameraOff) {
    this.lend()?.close();
    this.#say(text);
    this.render();
  }

  // ---- the widgets

  #watchWidgets() {
    for (const name of WIDGETS) chain(this.#widget(name), "callback", () => this.#change(name));
    for (const event of ["pointerenter", "focus"]) {
      this.#list.addEventListener(event, () => this.#look());
    }
    this.#list.onchange = () => {
      const device = this.#widget("device");
      device.value = this.#list.value;
      device.callback?.(device.value);
      this.#node.setDirtyCanvas(true, true);
    };
  }

  /** Rate and mirror act at once; another camera has to be opened. */
  #change(name) {
    const camera = this.#camera;
    if (camera && name in camera) camera[name] = this.wish[name];
    else if (this.#live) this.#live.film();
    else if (this.#test) this.#beginTest();
    this.render();
  }

  async #look() {
    try {
      const { listCameras } = await loadScripts();
      this.#cameras = await listCameras();
    } catch (error) {
      this.#say(`${words.noPage} ${error.message}`);
    }
    this.#fillList();
  }

  /** The browser's cameras, and the one that is wished for. */
  #fillList() {
    const { shows, device } = this.wish;
    const labels = this.#cameras.map(({ label }) => label);
    const options = labels.map((label) => new Option(label));
    options.unshift(new Option(words.defaultCamera, ""));
    if (device && !labels.includes(device)) {
      const text = labels.length ? fill(words.notThere, device) : device;
      options.push(new Option(text, device));
    }
    if (!isSame(options, [...this.#list.options])) this.#list.replaceChildren(...options);
    this.#list.value = device;
    this.#list.disabled = shows === "screen";
  }
}

/** Whether a list, which may be open, needs no change. */
function isSame(options, others) {
  const text = (list) => JSON.stringify(list.map((option) => [option.text, option.value]));
  return text(options) === text(others);
}

/** The panel of a program's node: what the program needs to know. */
export class ProgramPanel {
  kind = "feed";
  #said = element("p", { className: "live2diff-message", textContent: words.program });
  #table = element("div", { className: "live2diff-table" });

  constructor(node, streams) {
    addPanel(node, "access", element("div", {}, this.#table, this.#said), PROGRAM_HEIGHT);
    chain(node, "onRemoved", () => streams.settleSoon());
    streams.settleSoon();
  }

  join(live) {
    const rows = Object.entries(live.access).map(([name, value]) => this.#row(words[name], value));
    this.#table.replaceChildren(...rows.flat());
    this.#said.textContent = "";
  }

  /** They stay the same from run to run. */
  leave() {}

  render() {}

  #row(label, value) {
    const field = element("input", { readOnly: true, value, ariaLabel: label });
    const copying = async () => {
      field.select();
      this.#said.textContent = (await copy(value)) ? words.copied : "";
    };
    return [element("span", { textContent: label }), field, button(words.copy, label, copying)];
  }
}
