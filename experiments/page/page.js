for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], first = [...body.rows];
  for (const head of table.querySelectorAll("th[data-column]")) {
    const at = Number(head.dataset.column), button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      table.querySelectorAll("th[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
      if (before === "descending") { body.append(...first); return; }
      const way = before === "ascending" ? -1 : 1;
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      const key = row => row.cells[at].dataset.key;
      body.append(...[...first].sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return way * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
      }));
    });
  }
}
