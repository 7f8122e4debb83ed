// A worker that ticks: a page's own timers slow down while its tab is hidden, those of a worker do
// not. It is told the milliseconds between two ticks, 0 for none.

let timer = 0;

onmessage = ({ data: period }) => {
  clearInterval(timer);
  if (period) timer = setInterval(() => postMessage(null), period);
};
