// The bare page: the pictures of one stream, and nothing else.

import { LiveSocket, draw } from "./live.js";

const canvas = document.querySelector("canvas");
const stream = decodeURIComponent(location.pathname.split("/").pop());

new LiveSocket({ role: "viewer", stream, onFrame: (frame) => draw(canvas, frame) }).connect();
