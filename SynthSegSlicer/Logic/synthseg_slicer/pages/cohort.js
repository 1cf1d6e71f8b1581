"use strict";
(() => {
  document.documentElement.classList.add("js");
  const table = document.getElementById("all");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator("en", { numeric: true });

  function number(text) {
    const value = Number(text.replaceAll("\u202f", "").replace("\u2212", "-"));
    return text === "" || Number.isNaN(value) ? null : value;
  }

  function sort(column, descending) {
    const numeric = heads[column].dataset.sort === "number";
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[column].textContent;
      return { row, key: numeric ? number(text) : text };
    });
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null); // nothing comes last
      const order = numeric ? a.key - b.key : collator.compare(a.key, b.key);
      return descending ? -order : order;
    });
    body.append(...keyed.map(({ row }) => row));
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let count = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      count += row.hidden ? 0 : 1;
    }
    shown.value = wanted === "" ? "" : `${count} of ${body.rows.length}`;
  });
})();
