/* Charts by Vega and long tables by DataTables. Without a script, and on paper, the drawn figures and all rows stand. */
document.addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll(".interactive")) {
    const drawn = part.querySelector("figure"), frame = document.createElement("div"),
      chart = frame.appendChild(document.createElement("div")), other = document.createElement("button");
    const specification = JSON.parse(part.querySelector("script").textContent);
    const width = Math.max(240, part.clientWidth - (specification.usermeta?.beside ?? 90));
    for (const panel of specification.vconcat ?? []) panel.width = width;
    frame.className = "chart";
    frame.tabIndex = 0;
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", specification.description);
    other.type = "button";
    part.append(other, frame);
    const show = interactive => {
      frame.hidden = !interactive;
      drawn.classList.toggle("aside", interactive);
      other.textContent = interactive ? "Show the drawn figure" : "Show the interactive chart";
    };
    other.addEventListener("click", () => show(frame.hidden));
    show(matchMedia("(min-width: 640px)").matches);
    vegaEmbed(chart, specification, {actions: false, renderer: "canvas"}).catch(() => { part.removeChild(other); show(false); });
  }
  for (const table of document.querySelectorAll(".report-table.long table")) {
    const shown = new DataTable(table, {
      order: [], pageLength: 10, lengthChange: false, autoWidth: false,
      language: {search: "Find in this table:", info: "Rows _START_ to _END_ of _TOTAL_"},
    });
    addEventListener("beforeprint", () => shown.page.len(-1).draw());
    addEventListener("afterprint", () => shown.page.len(10).draw());
  }
});
