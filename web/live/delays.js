// How long frames take from the camera to the page.

const KEPT = 120; // frames
const LONGEST = 60; // seconds; more is another clock

/** Delays of the latest frames. */
export class Delays {
  #last = -1;
  #seconds = [];

  /** A frame that was shown again, as while the picture is held, says nothing new. */
  add(index, seconds) {
    if (index > this.#last && seconds >= 0 && seconds < LONGEST) this.#seconds.push(seconds);
    if (this.#seconds.length > KEPT) this.#seconds.shift();
    this.#last = index;
  }

  /** {p50, p95} in milliseconds, undefined while there are none. */
  get percentiles() {
    if (!this.#seconds.length) return undefined;
    const ordered = [...this.#seconds].sort((a, b) => a - b);
    const at = (share) => 1000 * ordered[Math.round(share * (ordered.length - 1))];
    return { p50: at(0.5), p95: at(0.95) };
  }
}
