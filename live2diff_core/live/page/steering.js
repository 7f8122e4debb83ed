// Values that are being dragged: an ES module without side effects.

const SHOWN = new Set(["changed", "change failed", "engine failed"]);
const LONGEST = 2000; // milliseconds to wait for a change to show

/** Why a question gets no answer: the line is broken. */
export class NotConnected extends Error {
  constructor() {
    super("not connected");
  }
}

/**
 * Sends changes one after the other: of what is wanted while one is on its way, the newest of each
 * name counts. A change that primes the stream anew is waited for until it shows, as the next one
 * would replace it while it is made, and nothing would ever show.
 *
 * control(changes)   sends; resolves to {frame, effects, refused}, rejects with NotConnected
 * isOpen()           whether the line is there
 * onAnswer(answer, changes)
 */
export class Lane {
  #control;
  #isOpen;
  #onAnswer;
  #wanted = {};
  #busy = false;
  #shown = -1; // frame of the newest change that shows
  #look = () => {}; // whether it is the one that is waited for

  constructor({ control, isOpen, onAnswer }) {
    this.#control = control;
    this.#isOpen = isOpen;
    this.#onAnswer = onAnswer;
  }

  want(changes) {
    Object.assign(this.#wanted, changes);
    this.resume();
  }

  /** Send what waits, also when the line is there again. */
  async resume() {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#isOpen() && Object.keys(this.#wanted).length) await this.#send();
    this.#busy = false;
  }

  /** An event of the stream. */
  hear({ event, frame }) {
    if (SHOWN.has(event)) this.#show(event === "changed" ? frame : Infinity);
  }

  /** The line broke: no event will come. */
  interrupt() {
    this.#show(Infinity);
  }

  #show(frame) {
    this.#shown = frame;
    this.#look();
  }

  async #send() {
    const changes = this.#wanted;
    this.#wanted = {};
    this.#shown = -1; // the event may come before the answer
    try {
      const answer = await this.#control(changes);
      this.#onAnswer(answer, changes);
      if (Object.values(answer.effects).includes("re-prime")) await this.#untilShown(answer.frame);
    } catch (error) {
      if (error instanceof NotConnected) this.#wanted = { ...changes, ...this.#wanted };
      else this.#onAnswer({ frame: null, effects: {}, refused: refusals(changes, error) }, changes);
    }
  }

  #untilShown(frame) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, LONGEST);
      this.#look = () => {
        if (this.#shown < frame) return;
        clearTimeout(timer);
        resolve();
      };
      this.#look();
    });
  }
}

function refusals(changes, { message }) {
  return Object.fromEntries(Object.keys(changes).map((name) => [name, message]));
}
