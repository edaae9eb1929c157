# SPDX-License-Identifier: Apache-2.0
"""The look of a report: one page around it, one style sheet for light and dark, desk and phone; nothing is loaded."""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1d2126;--muted:#5d646c;--grid:#dcdad3;--base:#8d949c;
--control:#b9802a;--result:#12776c;--bad:#b3402f;--soft:#b5cfc9;--line:#e6e3db}
@media (prefers-color-scheme:dark){:root{--paper:#14171a;--card:#1b1f23;--ink:#e8e6e1;--muted:#9da5ad;--grid:#373d43;
--base:#7c858e;--control:#d29c4a;--result:#4cb5a6;--bad:#e2705d;--soft:#2d5a54;--line:#2b3036}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
.run{color:var(--muted);font-size:14px;margin:0 0 10px}
h1{font-size:clamp(26px,4vw,38px);line-height:1.2;letter-spacing:-.015em;margin:0 0 16px;text-wrap:balance;
max-width:26em}
h2{font-size:22px;line-height:1.3;margin:56px 0 6px;letter-spacing:-.01em}
h3{font-size:16px;margin:28px 0 8px}
p,li{max-width:46em}
li+li{margin-top:8px}
ul{padding-left:20px}
.lead{font-size:17px;color:var(--muted);margin:0 0 28px}
.lead b{color:var(--ink);font-weight:600}
.note{color:var(--muted);font-size:14px}
.cards{display:grid;grid-template-columns:repeat(3,1fr);gap:14px;margin:0 0 20px}
.card{background:var(--card);border:1px solid var(--line);border-top:4px solid var(--c);border-radius:8px;
padding:14px 18px 16px}
.card .what{font-weight:600;font-size:15px}
.card .rate{font-size:38px;line-height:1.15;font-weight:650;letter-spacing:-.02em;margin:6px 0 2px;
font-variant-numeric:tabular-nums}
.card .count{font-size:14px}
.card .how{color:var(--muted);font-size:14px;line-height:1.4;margin-top:8px}
.baseline{--c:var(--base)}.control{--c:var(--control)}.final{--c:var(--result)}
.plots{display:grid;grid-template-columns:1fr 1fr;gap:14px;margin:18px 0;align-items:start}
.plots>figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px 10px;
min-width:0}
.plots figcaption{font-weight:600;font-size:15px;margin-bottom:6px}
.plots>.note{align-self:center}
.plots svg{display:block;width:100%;height:auto}
svg text{font-family:inherit!important}
.missing{border:1px solid var(--control);border-left-width:5px;border-radius:8px;padding:12px 18px;margin:0 0 24px}
.missing ul{margin:6px 0 0;padding-left:20px}
.wide{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;width:100%;font-size:15px;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:9px 16px 9px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--muted);font-weight:600;font-size:13px;white-space:nowrap}
td small{display:block;color:var(--muted);font-size:13px;white-space:nowrap}
td:first-child{white-space:nowrap}
.film{display:grid;grid-template-columns:190px 1fr;gap:16px;margin:10px 0;padding:8px 0 8px 14px;
border-left:4px solid var(--line)}
.film.wrong{border-left-color:var(--bad)}
.film .frames{display:grid;grid-template-columns:repeat(8,1fr);gap:3px}
.film img{display:block;width:100%;height:auto;border-radius:3px}
.film figcaption{font-size:14px;line-height:1.45}
.film{margin-left:0;margin-right:0}
.film .name{color:var(--muted);font-size:13px}
.mark{color:var(--bad);font-weight:650}
.problem{font-size:14px;color:var(--bad);overflow-wrap:anywhere;align-self:center}
details{border-top:1px solid var(--line);padding:14px 0}
details:last-of-type{border-bottom:1px solid var(--line)}
summary{cursor:pointer;font-weight:600}
summary:focus-visible{outline:2px solid var(--result);outline-offset:3px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 20px;font-size:14px;margin:12px 0}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:760px){main{padding:24px 16px 48px}.cards,.plots{grid-template-columns:1fr}
.card{display:grid;grid-template-columns:1fr auto;column-gap:12px;align-items:baseline}
.card .rate{font-size:30px;margin:0}
.card .count,.card .how{grid-column:1/-1;margin-top:2px}.plots>figure{padding:12px 10px 8px}
.film{grid-template-columns:1fr;gap:8px}.film .frames{grid-template-columns:repeat(4,1fr)}h2{margin-top:44px}
dl{grid-template-columns:1fr}dt{margin-top:8px}tr:first-child{display:none}
tr{display:block;padding:10px 0;border-bottom:1px solid var(--line)}td{display:flex;justify-content:space-between;
padding:2px 0;border:0;text-align:right}td::before{content:attr(data-name);color:var(--muted)}
td:first-child{font-weight:600}td:first-child::before{display:none}}
@media print{details{display:none}.film{break-inside:avoid}}
"""


def document(title: str, body: str) -> str:
    """Return the whole page of a report, both parts in HTML; a number and its sign stay on one line in the body."""
    for number in (" %", "p = ", "p &lt; "):
        body = body.replace(number, number.replace(" ", "&nbsp;"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )
