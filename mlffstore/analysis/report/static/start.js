"use strict";
report.build();
report.links();
document.querySelectorAll("table.sorts").forEach(report.sortable);
charts.build();
viewer.build();
