# SPDX-License-Identifier: MIT
# Drawn upon by report.py, which sets linear, title, xtext and file, and plots after this.
set terminal svg size 760,460 dynamic background rgb "white" font "sans-serif,13"
set output file
set title title
set xlabel xtext
set ylabel "ns"
set grid xtics ytics linecolor rgb "#dddddd"
set key outside right top
set logscale y
if (linear) {
	set xtics 1
} else {
	set logscale x
	set format x "10^{%T}"
}
set style line 1 linecolor rgb "#0050a0" linewidth 3 pointtype 7
set style line 2 linecolor rgb "#888888" linewidth 2 pointtype 6
set style line 3 linecolor rgb "#00a0a0" linewidth 2 pointtype 5
set style line 4 linecolor rgb "#c04020" linewidth 2 pointtype 9
set style line 5 linecolor rgb "#308030" linewidth 2 pointtype 11
set style line 6 linecolor rgb "#a07000" linewidth 2 pointtype 13
set style line 7 linecolor rgb "#8040a0" linewidth 2 pointtype 4
