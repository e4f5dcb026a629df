"use strict";

// The strict policy of these pages allows neither, and nothing here needs them.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;

// Names for screen readers where the theme gives none: tests/browser/test_accessibility.py.
function textOf(element) {
  return element?.textContent.replaceAll("*", "").trim() ?? "";
}

function nameFields(fields, nameOf) {
  for (const field of fields) {
    if (field.type !== "hidden" && !field.labels?.length && !field.ariaLabel) {
      field.ariaLabel = nameOf(field).trim();
    }
  }
}

function nameLandmarks() {
  document.getElementById("main")?.setAttribute("role", "main");
  document
    .querySelector("#nav-sidebar-apps .simplebar-content-wrapper")
    ?.setAttribute("aria-label", "Menu");
  for (const region of document.querySelectorAll("fieldset .simplebar-content-wrapper")) {
    region.ariaLabel = textOf(region.closest("fieldset").querySelector("h2"));
  }
}

function nameRows() {
  nameFields(document.querySelectorAll("#result_list td :is(input, select, textarea)"), (field) => {
    const row = field.closest("tr").querySelector("th, td.field-__str__");
    return `${field.name.split("-").pop()} ${textOf(row)}`;
  });
  // Of rows within a form: also of the hidden one that new rows are copies of.
  nameFields(document.querySelectorAll(".tabular td :is(input, select, textarea)"), (field) => {
    const column = field.closest("td").cellIndex;
    const heading = field.closest("table").tHead.rows[0].cells[column];
    return textOf(heading.querySelector("span span") ?? heading);
  });
  for (const heading of document.querySelectorAll(".tabular thead th")) {
    if (!textOf(heading)) {
      heading.textContent = "Delete";
    }
  }
}

function nameWidgets() {
  for (const chosen of document.querySelectorAll(".select2-selection__rendered")) {
    const field = chosen.id.replace(/^select2-|-container$/g, "");
    chosen.ariaLabel = textOf(document.querySelector(`label[for="${field}"]`));
  }
  for (const tip of document.querySelectorAll("span.help-tooltip[aria-label]")) {
    tip.setAttribute("role", "img");
  }
}

window.addEventListener("load", () => {
  nameLandmarks();
  nameRows();
  // Widgets are made by other listeners to the same event.
  setTimeout(nameWidgets);
});
