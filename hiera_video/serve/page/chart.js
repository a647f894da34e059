// Draw the scores of the video's best classes over time, with a cursor at the current time.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 34, RIGHT = 8, TOP = 8, BOTTOM = 20;

// Return the score of each class at a time, interpolated between the two windows whose centres are
// nearest.
export function scoresAt(answer, time) {
  const rows = answer.evidence.scores;
  const middles = answer.windows.map((one) => (one.start_sec + one.end_sec) / 2);
  const next = middles.findIndex((middle) => middle > time);
  if (next === 0) return rows[0];
  if (next < 0) return rows[rows.length - 1];
  const share = (time - middles[next - 1]) / (middles[next] - middles[next - 1]);
  return rows[next].map((score, place) => share * score + (1 - share) * rows[next - 1][place]);
}

// Return a class's name with spaces.
export function shown(name) {
  return name.replaceAll("_", " ");
}

export class Chart {
  // `seek` is called with the time in seconds that the user points at.
  constructor(box, seek) {
    this.box = box;
    this.answer = null;
    this.time = 0;
    const point = (event) => {
      if (!this.answer || (event.type === "pointermove" && !event.buttons)) return;
      const share = (event.clientX - box.getBoundingClientRect().left - LEFT) / this.room();
      seek(Math.min(Math.max(share, 0), 1) * this.answer.duration_sec);
    };
    box.addEventListener("pointerdown", point);
    box.addEventListener("pointermove", point);
    new ResizeObserver(() => this.draw()).observe(box);
  }

  show(answer) {
    this.answer = answer;
    this.time = 0;
    this.draw();
  }

  room() {
    return Math.max(this.box.clientWidth - LEFT - RIGHT, 1);
  }

  x(time) {
    return LEFT + (time / this.answer.duration_sec) * this.room();
  }

  y(score) {
    return TOP + (1 - score) * (this.height - TOP - BOTTOM);
  }

  draw() {
    if (!this.answer) return;
    this.height = this.box.clientHeight;
    const svg = make("svg", { role: "img", "aria-label": this.summary() });
    for (const score of [0, 0.5, 1]) {
      const y = this.y(score);
      svg.append(make("line", { class: "grid", x1: LEFT, x2: LEFT + this.room(), y1: y, y2: y }));
      svg.append(text(`${100 * score}%`, { x: LEFT - 6, y: y + 4, "text-anchor": "end" }));
    }
    const end = this.answer.duration_sec;
    svg.append(text("0 s", { x: LEFT, y: this.height - 4 }));
    svg.append(text(`${end.toFixed(1)} s`, { x: this.x(end), y: this.height - 4, "text-anchor": "end" }));
    // Draw the best class last, so that no other line covers it.
    for (let place = this.answer.predictions.length - 1; place >= 0; place--) {
      svg.append(make("polyline", { class: `c${place}`, points: this.points(place) }));
    }
    this.cursor = make("line", { class: "cursor", y1: TOP - 4, y2: this.height - BOTTOM });
    this.dots = this.answer.predictions.map((_, place) => make("circle", { class: `c${place}`, r: 5 }));
    svg.append(this.cursor, ...this.dots.slice().reverse());
    this.box.replaceChildren(svg);
    this.move(this.time);
  }

  points(place) {
    const times = this.answer.windows.map((one) => (one.start_sec + one.end_sec) / 2);
    const all = [0, ...times, this.answer.duration_sec];
    return all.map((time) => `${this.x(time)},${this.y(scoresAt(this.answer, time)[place])}`).join(" ");
  }

  move(time) {
    this.time = time;
    if (!this.cursor) return;
    const x = this.x(Math.min(time, this.answer.duration_sec));
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const scores = scoresAt(this.answer, time);
    this.dots.forEach((dot, place) => {
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", this.y(scores[place]));
    });
  }

  // Describe the lines for screen readers: the intervals in which one class leads.
  summary() {
    const stretches = [];
    for (const one of this.answer.windows) {
      const name = shown(one.predictions[0].name), last = stretches[stretches.length - 1];
      if (last && last.name === name) last.end = one.end_sec;
      else stretches.push({ name, start: one.start_sec, end: one.end_sec });
    }
    const words = stretches.slice(0, 12).map(
      (one) => `${one.name} from ${one.start.toFixed(1)} to ${one.end.toFixed(1)} s`,
    );
    return `The leading class over time: ${words.join(", ")}${stretches.length > 12 ? ", and more" : ""}.`;
  }
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(words, attributes) {
  const element = make("text", attributes);
  element.textContent = words;
  return element;
}
