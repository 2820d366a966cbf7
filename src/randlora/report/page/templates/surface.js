"use strict";
(() => {
  // Viridis at even steps.
  const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const colour = (share) => {
    const place = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
    const low = Math.min(Math.floor(place), COLOURS.length - 2);
    const mixed = COLOURS[low].map((part, i) => Math.round(part + (place - low) * (COLOURS[low + 1][i] - part)));
    return `rgb(${mixed.join(",")})`;
  };

  const show = (canvas) => {
    const { x, y, z, marks } = JSON.parse(canvas.dataset.surface);
    const context = canvas.getContext("2d");
    const flat = z.flat();
    const [low, high] = [Math.min(...flat), Math.max(...flat)];
    const unit = (value, values) => (2 * (value - values[0])) / (values[values.length - 1] - values[0]) - 1;
    const height = (value) => (high > low ? (value - low) / (high - low) : 0);
    let [turn, tilt] = [0.6, 0.5];

    // In pixels of the page, whatever the screen's: texts have the same size on a phone.
    const size = () => [canvas.clientWidth, canvas.clientHeight];
    // A point of the unit box on the canvas, and how far behind the middle it is.
    const project = (a, b, c) => {
      const [right, deep] = [a * Math.cos(turn) - b * Math.sin(turn), a * Math.sin(turn) + b * Math.cos(turn)];
      const [wide, tall] = size();
      const scale = tall / 3.2; // turned and tilted in any way, all of it and the names above are inside
      const up = (c - 0.5) * 1.1 * Math.cos(tilt) + deep * Math.sin(tilt);
      return [wide / 2 + scale * right, tall / 2 - scale * up, deep];
    };
    const draw = () => {
      const { color: ink, backgroundColor: paper } = getComputedStyle(document.body);
      const [wide, tall] = size();
      [canvas.width, canvas.height] = [wide * devicePixelRatio, tall * devicePixelRatio]; // which clears it, too
      context.scale(devicePixelRatio, devicePixelRatio);
      const patches = [];
      for (let row = 0; row + 1 < y.length; row += 1) {
        for (let column = 0; column + 1 < x.length; column += 1) {
          const corners = [[0, 0], [0, 1], [1, 1], [1, 0]].map(([r, c]) => [row + r, column + c]);
          const points = corners.map(([r, c]) => project(unit(x[c], x), unit(y[r], y), height(z[r][c])));
          const mean = corners.reduce((sum, [r, c]) => sum + z[r][c], 0) / 4;
          patches.push({ points, share: height(mean), depth: Math.max(...points.map((point) => point[2])) });
        }
      }
      patches.sort((a, b) => b.depth - a.depth);
      context.lineWidth = 0.5;
      for (const patch of patches) {
        context.beginPath();
        patch.points.forEach(([left, top]) => context.lineTo(left, top));
        context.closePath();
        context.fillStyle = colour(patch.share);
        context.fill();
        context.strokeStyle = "rgba(255,255,255,0.4)";
        context.stroke();
      }
      context.font = "13px system-ui, sans-serif";
      context.textAlign = "center";
      context.lineJoin = "round";
      for (const mark of marks) {
        const foot = project(unit(mark.x, x), unit(mark.y, y), height(mark.z));
        const head = project(unit(mark.x, x), unit(mark.y, y), Math.max(height(mark.z), 0) + 0.35);
        const top = Math.max(head[1], 20); // a name has room above
        context.strokeStyle = context.fillStyle = ink;
        context.lineWidth = 1.5;
        context.beginPath();
        context.moveTo(foot[0], foot[1]);
        context.lineTo(head[0], top);
        context.stroke();
        context.beginPath();
        context.arc(foot[0], foot[1], 4, 0, 2 * Math.PI);
        context.fill();
        const half = context.measureText(mark.name).width / 2 + 3;
        const left = Math.min(Math.max(head[0], half), wide - half);
        context.strokeStyle = paper;
        context.lineWidth = 4;
        context.strokeText(mark.name, left, top - 4);
        context.fillText(mark.name, left, top - 4);
      }
    };
    const by = (right, up) => {
      turn += right;
      tilt = Math.min(Math.max(tilt + up, 0.05), 1.5);
      draw();
    };
    const keys = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    canvas.addEventListener("keydown", (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      by(...keys[event.key]);
    });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons) by(-event.movementX / 120, event.movementY / 120);
    });
    document.addEventListener("themechange", draw);
    addEventListener("resize", draw);
    canvas.parentElement.hidden = false;
    draw();
  };
  document.querySelectorAll("[data-surface]").forEach(show);
})();
