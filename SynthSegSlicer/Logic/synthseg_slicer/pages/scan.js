"use strict";
(() => {
  document.documentElement.classList.add("js");
  const frame = document.querySelector(".planes");
  const planes = [...frame.querySelectorAll(".plane")].map((section) => ({
    section,
    figures: [...section.querySelectorAll("figure")],
    slider: section.querySelector("input"),
    output: section.querySelector("output"),
  }));
  const lines = document.getElementById("lines");
  const shown = (plane) => plane.figures[plane.slider.value];

  function drawLines() {
    frame.querySelectorAll("line").forEach((line) => line.remove());
    if (!lines.checked) return;
    for (const plane of planes) {
      const svg = shown(plane).querySelector("svg");
      const { width, height } = svg.viewBox.baseVal;
      for (const other of planes) {
        if (other === plane) continue;
        const upright = other.section.dataset.normal === plane.section.dataset.across;
        const at = shown(other).dataset.mm;
        const ends = upright ? { x1: at, x2: at, y1: 0, y2: height } : { x1: 0, x2: width, y1: at, y2: at };
        const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
        for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
        svg.querySelector("text").before(line);
      }
    }
  }

  function update() {
    for (const plane of planes) {
      const current = shown(plane);
      for (const figure of plane.figures) figure.classList.toggle("shown", figure === current);
      const place = current.querySelector("figcaption").textContent;
      plane.output.value = place;
      plane.slider.setAttribute("aria-valuetext", place);
    }
    drawLines();
  }

  for (const plane of planes) plane.slider.addEventListener("input", update);
  lines.addEventListener("change", drawLines);
  const fill = document.getElementById("fill");
  fill.addEventListener("change", () => frame.classList.toggle("filled", fill.checked));
  for (const name of ["structures", "lesions"]) {
    const box = document.getElementById("show-" + name);
    if (box) box.addEventListener("change", () => frame.classList.toggle("without-" + name, !box.checked));
  }
  const find = document.getElementById("find");
  find.addEventListener("change", () => {
    frame.querySelectorAll(".found").forEach((path) => path.classList.remove("found"));
    frame.classList.toggle("one", find.value !== "");
    if (find.value === "") return;
    frame.querySelectorAll("path." + find.value).forEach((path) => path.classList.add("found"));
    find.selectedOptions[0].dataset.at.split(" ").forEach((number, index) => (planes[index].slider.value = number));
    update();
  });
  update();
})();
