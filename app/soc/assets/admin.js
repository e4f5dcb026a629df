"use strict";

// The strict policy of these pages allows neither, and nothing here needs them.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// The theme gives a page's content no landmark, its menus one name, and the fields of a list none.
window.addEventListener("load", () => {
  document.getElementById("main")?.setAttribute("role", "main");
  document
    .querySelector("#nav-sidebar-apps .simplebar-content-wrapper")
    ?.setAttribute("aria-label", "Menu");
  for (const field of document.querySelectorAll("#result_list td :is(input, select, textarea)")) {
    if (field.type !== "hidden" && !field.labels?.length && !field.ariaLabel) {
      const row = field.closest("tr").querySelector("th, td.field-__str__")?.textContent.trim() ?? "";
      field.ariaLabel = `${field.name.split("-").pop()} ${row}`.trim();
    }
  }
});
