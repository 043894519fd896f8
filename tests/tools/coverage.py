#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
coverage.py COVERAGE.json UNCOVERED: says how much of src the tests run, and why they do not run the rest.

The first file is gcovr's. The second has an argument for each line that is not run, or not into all of its branches:
paragraphs of places, one a line, and below them, indented, why that is so.

    src/file.c: a part of the line's text that tells it from the others of the file
    sometimes src/file.c: a line that some runs of the tests come to and others do not
        Why.

Fails when a line is not argued, and when an argument is about nothing: the line is not there, or it is run.

A line's text is its code alone: a comment that is added, changed or taken away makes no difference, nor do line numbers and
indentation. Who changes the code of a line, breaks it or moves it to another file has to change its place here as well.
"""
import json
import re
import sys
from collections import namedtuple

HEADER = '''\
Compiled without optimization. A branch is one way out of a condition; && and || make several conditions of one. Not
counted: what is compiled on other machines only, what test_schedules runs on its simulated machine, and what was run by
a process that was killed.
'''

# Strings and characters, in which nothing is a comment; and comments.
TOKEN = re.compile(r'''"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|/\*.*?\*/|//[^\n]*''', re.DOTALL)

Line = namedtuple('Line', 'file number text counted ways')  # ways: for each branch, whether it was taken
Place = namedtuple('Place', 'sometimes file part')


def read_source(file):
    with open(file, encoding='utf-8') as f:
        return f.read().splitlines()


def read_code(file):
    def without_comment(match):
        return '\n' * match[0].count('\n') if match[0][0] == '/' else match[0]

    with open(file, encoding='utf-8') as f:
        return [' '.join(line.split()) for line in TOKEN.sub(without_comment, f.read()).split('\n')]


def read_lines(report):
    with open(report, encoding='utf-8') as f:
        for file in json.load(f)['files']:
            source = read_code(file['file'])
            for line in file['lines']:
                if not line['gcovr/noncode']:
                    number = line['line_number']
                    # The library is compiled with -fexceptions, by which each call has a way out that is no branch.
                    ways = [branch['count'] > 0 for branch in line['branches'] if not branch['throw']]
                    yield Line(file['file'], number, source[number - 1], line['count'] > 0, ways)


def read_arguments(path):
    paragraphs = [[]]
    for line in read_source(path):
        if not line:
            paragraphs.append([])
        elif not line.startswith('#'):
            paragraphs[-1].append(line)
    for lines in filter(None, paragraphs):
        places = []
        for line in lines:
            if not line[0].isspace():
                words, _, part = line.partition(': ')
                places.append(Place(words.startswith('sometimes '), words.split()[-1], part))
        yield places, [line.strip() for line in lines if line[0].isspace()]


def is_about(place, line):
    return place.file == line.file and place.part in line.text


def print_sums(name, lines):
    ways = [way for line in lines for way in line.ways]
    print(f'{name:20}{sum(line.counted for line in lines):7} of {len(lines):4}{sum(ways):10} of {len(ways):4}')


def print_line(line):
    what = f'{sum(line.ways)} of {len(line.ways)} branches' if line.counted else 'not run'
    print(f'{line.file}:{line.number}: {line.text}    [{what}]')


def main(report, arguments):
    lines = list(read_lines(report))
    left_out = [line for line in lines if not line.counted or not all(line.ways)]
    argued, stale = set(), []

    print(HEADER)
    print(f'{"":20}{"lines run":>14}{"branches taken":>19}')
    for file in sorted({line.file for line in lines}):
        print_sums(file, [line for line in lines if line.file == file])
    print_sums('all', lines)

    for places, text in read_arguments(arguments):
        print()
        for place in places:
            about = [line for line in left_out if is_about(place, line)]
            for line in about:
                argued.add((line.file, line.number))
                print_line(line)
            if not about and not (place.sometimes and any(is_about(place, line) for line in lines)):
                stale.append(place)
            elif not about:
                print(f'{place.file}: {place.part}    [run, this time]')
        print(*(f'    {line}' for line in text), sep='\n')

    unargued = [line for line in left_out if (line.file, line.number) not in argued]
    if stale:
        print('\nArgued, but run, or not there:')
        for place in stale:
            print(f'{place.file}: {place.part}')
    if unargued:
        print('\nNeither run nor argued:')
        for line in unargued:
            print_line(line)
    print(f'\n{len(argued)} lines argued, {len(unargued)} not; {len(stale)} arguments about nothing')
    return 1 if stale or unargued else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
