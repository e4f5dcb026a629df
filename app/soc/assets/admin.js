"use strict";

// The strict policy of these pages allows neither, and nothing here needs them.
htmx.config.includeIndicatorStyles = false;
htmx.config.allowEval = false;
