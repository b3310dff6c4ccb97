"""The style sheet and the mark shapes of the report pages, as text that goes into a page itself.

Colours are the colour-blind-safe set of Okabe and Ito, darkened or lightened until text has a contrast of 4.5; studies
differ by shape and fill too. Next: script.py, page.py.
"""

from __future__ import annotations

SHAPES = """<svg class="shapes" width="0" height="0" aria-hidden="true"><defs>
<circle id="dot" r="3.7"></circle>
<path id="triangle" d="M0 -4.4L4.2 3.1L-4.2 3.1Z"></path>
<path id="star" d="M0 -9L2.3 -3.2L8.6 -2.8L3.7 1.2L5.3 7.3L0 3.9L-5.3 7.3L-3.7 1.2L-8.6 -2.8L-2.3 -3.2Z"></path>
<path id="cross" d="M-3.4 -3.4L3.4 3.4M-3.4 3.4L3.4 -3.4"></path>
<rect id="square" x="-5" y="-5" width="10" height="10"></rect>
<path id="line" d="M-7 0L7 0"></path>
</defs></svg>"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f7; --card: #ffffff; --ink: #1b2126; --soft: #59636d; --edge: #e0e4e8; --grid: #edf0f2;
  --search: #0069a6; --baseline: #b94a00; --front: #007a5a; --winner: #f0b400; --failed: #a3224f; --over: #1b21260b;
  --good: #00694d; --good-back: #e0f4ed; --bad: #a03a00; --bad-back: #fcebdf; --bar: #a9cbe2;
  --o0: #0069a6; --o1: #7fb7da; --o2: #f0b400; --o3: #b94a00; --o4: #007a5a; --o5: #8d6aa8;
  --g0: #0069a6; --g1: #b94a00; --g2: #007a5a; --g3: #8d3f8f; --g4: #7a6000; --g5: #555d66;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #111417; --card: #191d21; --ink: #e9ecef; --soft: #a2abb4; --edge: #2b3137; --grid: #252a2f;
    --search: #62b6ea; --baseline: #f19155; --front: #3ccfa0; --winner: #f5d547; --failed: #ff8fb0; --over: #ffffff0a;
    --good: #5fdcb3; --good-back: #12332a; --bad: #f7a873; --bad-back: #3a2313; --bar: #2b526c;
    --o0: #62b6ea; --o1: #2b526c; --o2: #f5d547; --o3: #f19155; --o4: #3ccfa0; --o5: #b79bd0;
    --g0: #62b6ea; --g1: #f19155; --g2: #3ccfa0; --g3: #dd9be0; --g4: #d9c15a; --g5: #b5bec7;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -.02em; margin: 4px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 52px 0 14px; }
h3 { font-size: 16px; margin: 0 0 2px; }
p { margin: 0 0 12px; }
.eyebrow { color: var(--soft); font-size: 13px; letter-spacing: .08em; text-transform: uppercase; margin: 0; }
.lead { font-size: 19px; }
.soft { color: var(--soft); font-size: 14px; max-width: 92ch; }
.scroll + .soft { margin-top: 12px; }
td .badge { margin-left: -11px; }
.badge { display: inline-block; padding: 1px 11px; border-radius: 99px; font-size: 14px; font-weight: 600;
  vertical-align: 2px; margin-left: 6px; white-space: nowrap; }
.yes { color: var(--good); background: var(--good-back); }
.no { color: var(--bad); background: var(--bad-back); }
.unknown { color: var(--soft); background: var(--grid); }
.notes { list-style: none; margin: 18px 0 0; padding: 10px 16px; border-left: 4px solid var(--winner);
  background: var(--card); border-radius: 4px; font-size: 14px; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 26px 0 0; }
.tile { padding: 15px 18px 16px; }
.tile dt { color: var(--soft); font-size: 13px; }
.tile dd { margin: 0; font-size: 14px; color: var(--soft); }
.tile .figure { font-size: 29px; line-height: 1.25; font-weight: 650; letter-spacing: -.02em; color: var(--ink);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.figure small { font-size: 16px; font-weight: 500; letter-spacing: 0; color: var(--soft); }
.meter { position: relative; height: 6px; border-radius: 3px; background: var(--grid); margin: 8px 0 7px; }
.meter i { position: absolute; inset: 0 auto 0 0; border-radius: 3px; background: var(--search); }
.meter b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); }
.scroll { overflow-x: auto; }
.scroll:focus-visible, .plot:focus-visible { outline: 2px solid var(--search); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 14px 18px 4px; font-weight: 600; }
th, td { text-align: left; padding: 9px 14px; border-top: 1px solid var(--edge); vertical-align: top; }
th:first-child, td:first-child { padding-left: 18px; }
thead th { border-top: 0; color: var(--soft); font-size: 13px; font-weight: 500; vertical-align: bottom; }
tbody th { font-weight: 500; }
.n { text-align: right; white-space: nowrap; }
.w { white-space: nowrap; }
tr.chosen > * { background: color-mix(in srgb, var(--search) 8%, transparent); }
tr.chosen > th { font-weight: 700; }
code { font: 12.5px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
td code { display: block; min-width: 280px; }
.dot-key { display: inline-block; width: 16px; height: 14px; vertical-align: -2px; margin-right: 6px;
  overflow: visible; }
.plots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
figure { margin: 0; padding: 17px 18px 12px; display: flex; flex-direction: column; }
figcaption p { color: var(--soft); font-size: 14px; margin: 0 0 8px; }
.plots > figure figcaption { flex: 1; display: flex; flex-direction: column; }
.plots .legend { margin-top: auto; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; padding: 0; margin: 0 0 6px;
  font-size: 13px; color: var(--soft); }
.aside { padding: 17px 0 6px; }
.aside h3, .aside p { padding: 0 18px; }
.shapes { position: absolute; }
.plot { display: block; width: 100%; height: auto; overflow: visible; touch-action: pan-y; }
.plot text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.plot .label { font-weight: 600; fill: var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; pointer-events: none; }
.grid { stroke: var(--grid); }
.axis, .tick { stroke: var(--soft); }
.over { fill: var(--over); }
.target { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }
.marks.search, .key.search { fill: var(--search); fill-opacity: .55; stroke: var(--search); stroke-width: .8; }
.marks.baseline, .key.baseline { fill: none; stroke: var(--baseline); stroke-width: 1.3; }
.marks.baseline { stroke-opacity: .75; pointer-events: all; }
.bars.search, .key.square.search { fill: var(--bar); stroke: none; fill-opacity: 1; }
.outline, .key.line { fill: none; stroke-width: 2.2; stroke: var(--baseline); }
.trend { fill: none; stroke-width: 2.6; stroke-linejoin: round; pointer-events: none; }
.trend.search { stroke: var(--search); }
.trend.baseline { stroke: var(--baseline); }
.marks.failed, .key.failed { fill: none; stroke: var(--failed); stroke-width: 1.6; pointer-events: all; }
.key.trend { stroke: var(--soft); }
.rule { stroke: var(--soft); stroke-width: 1.1; stroke-dasharray: 2 4; }
.front { fill: none; stroke: var(--front); stroke-width: 2.2; stroke-linejoin: round; pointer-events: none; }
.key.front { stroke: var(--front); }
g.winner, .key.winner { fill: var(--winner); stroke: var(--ink); stroke-width: 1.2; stroke-linejoin: round;
  pointer-events: none; }
.marks.g0, .key.g0 { fill: var(--g0); fill-opacity: .6; stroke: var(--g0); stroke-width: .8; }
.trend.g0 { stroke: var(--g0); stroke-width: 1.7; }
.marks.g1, .key.g1 { fill: var(--g1); fill-opacity: .6; stroke: var(--g1); stroke-width: .8; }
.trend.g1 { stroke: var(--g1); stroke-width: 1.7; }
.marks.g2, .key.g2 { fill: var(--g2); fill-opacity: .6; stroke: var(--g2); stroke-width: .8; }
.trend.g2 { stroke: var(--g2); stroke-width: 1.7; }
.marks.g3, .key.g3 { fill: var(--g3); fill-opacity: .6; stroke: var(--g3); stroke-width: .8; }
.trend.g3 { stroke: var(--g3); stroke-width: 1.7; }
.marks.g4, .key.g4 { fill: var(--g4); fill-opacity: .6; stroke: var(--g4); stroke-width: .8; }
.trend.g4 { stroke: var(--g4); stroke-width: 1.7; }
.marks.g5, .key.g5 { fill: var(--g5); fill-opacity: .6; stroke: var(--g5); stroke-width: .8; }
.trend.g5 { stroke: var(--g5); stroke-width: 1.7; }
.dot-key .key.line { stroke-width: 2.2; }
.plot .label.search { fill: var(--search); }
.plot .label.baseline { fill: var(--baseline); }
.legend button { font: inherit; color: inherit; background: none; border: 0; padding: 0; margin: 0; cursor: pointer;
}
.legend button[aria-pressed="false"] { opacity: .45; text-decoration: line-through; }
.legend button:focus-visible { outline: 2px solid var(--search); outline-offset: 2px; border-radius: 3px; }
.legend .back { margin-left: auto; text-decoration: underline; }
.gone, .zoomed .labels { display: none; }
.area { overflow: visible; }
.zoomed .area { overflow: hidden; }
.zoomed .area > * { vector-effect: non-scaling-stroke; }
.brush { fill: var(--search); fill-opacity: .12; stroke: var(--search); pointer-events: none; }
[data-x] { cursor: crosshair; }
.t0 { opacity: .22; } .t1 { opacity: .4; } .t2 { opacity: .6; } .t3 { opacity: .8; } .t4 { opacity: 1; }
.column { fill: transparent; stroke: none; }
.column.on { fill: var(--over); }
.halo { display: none; fill: none; stroke: var(--ink); stroke-width: 2; pointer-events: none; }
.halo.on { display: inline; }
#tip { position: fixed; z-index: 2; max-width: min(420px, calc(100vw - 24px)); padding: 8px 12px; border-radius: 8px;
  background: var(--ink); color: var(--card); font-size: 13px; line-height: 1.45; white-space: pre-line;
  overflow-wrap: anywhere; pointer-events: none; box-shadow: 0 4px 18px #0003; }
#tip[hidden] { display: none; }
#tip::first-line { font-weight: 700; }
.mix { display: block; width: 100%; min-width: 130px; height: 11px; border-radius: 3px; overflow: hidden; }
.mix + span { font-size: 13px; color: var(--soft); white-space: nowrap; }
.o0 { fill: var(--o0); } .o1 { fill: var(--o1); } .o2 { fill: var(--o2); } .o3 { fill: var(--o3); }
.o4 { fill: var(--o4); } .o5 { fill: var(--o5); }
.decisions td { padding-top: 6px; padding-bottom: 5px; }
.decisions tr.moved th { font-weight: 700; }
.decisions, .distances { font-size: 14px; }
.distances td { text-align: right; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
.facts > section { padding: 17px 18px; }
.facts dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 16px; margin: 8px 0 0;
  font-size: 14px; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.facts .wide { grid-column: 1 / -1; }
.stage { display: inline-block; height: 8px; border-radius: 2px; background: var(--bar); margin-right: 8px; }
footer { color: var(--soft); font-size: 13px; margin-top: 40px; }
@media (max-width: 860px) { .plots { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 560px) {
  main { padding: 24px 14px 48px; }
  h1 { font-size: 27px; }
  .lead { font-size: 17px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  .tile { padding: 12px 13px; }
  .tile .figure { font-size: 23px; }
  figure { padding: 15px 10px 8px; }
  .plot text { font-size: 14.5px; }
  th, td { padding: 8px 10px; }
  .networks tr { display: grid; grid-template-columns: minmax(0, 1fr) 4.2em 5em 5em;
    border-top: 1px solid var(--edge); }
  .networks th, .networks td { border-top: 0; padding: 7px 6px 4px; }
  .networks thead tr { border-top: 0; }
  .networks thead th:last-child { display: none; }
  .networks td:last-child { grid-column: 1 / -1; padding: 0 14px 9px; }
  td code { min-width: 0; }
  .aside table { font-size: 14px; }
  .aside th, .aside td { padding: 7px 10px 7px 0; }
  .aside tbody th { white-space: normal; }
  .lead .badge { margin-left: 0; }
  .facts dl { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .facts dd { margin-bottom: 7px; }
}
@media print { .card { break-inside: avoid; } body { background: none; } }
"""
