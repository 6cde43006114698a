interface Row {
  readonly name: string;
  readonly value: string;
  readonly note: string;
  readonly verdict: string;
}

interface Machine {
  readonly cores: number;
  readonly memory: string;
  readonly node: string;
  readonly system: string;
  readonly date: string;
  readonly quick: boolean;
}

/** Collects measurements, prints each as it comes, and writes them as a page. */
export class Report {
  readonly #sections: { title: string; about: string; rows: Row[] }[] = [];

  section(title: string, about: string): void {
    this.#sections.push({ title, about, rows: [] });
    process.stdout.write(`\n${title}\n`);
  }

  /** A figure that no bar is set for. */
  row(name: string, value: string, note = ''): void {
    this.#add({ name, value, note, verdict: '' });
  }

  /** A figure that must not be above its bar. */
  bar(name: string, value: number, most: number, format: (value: number) => string): void {
    const verdict = value <= most ? 'pass' : 'MISS';
    this.#add({ name, value: format(value), note: `at most ${format(most)}`, verdict });
  }

  /** A figure that must not be below its bar. */
  atLeast(name: string, value: number, least: number, format: (value: number) => string): void {
    const verdict = value >= least ? 'pass' : 'MISS';
    this.#add({ name, value: format(value), note: `at least ${format(least)}`, verdict });
  }

  /** What could not be measured here, and why. */
  skipped(why: string): void {
    this.#add({ name: 'not measured', value: '', note: why, verdict: '' });
  }

  #add(row: Row): void {
    this.#sections.at(-1)?.rows.push(row);
    process.stdout.write(`  ${row.name.padEnd(44)} ${row.value.padEnd(28)} ${row.note.padEnd(28)} ${row.verdict}\n`);
  }

  markdown({ cores, memory, node, system, date }: Machine): string {
    const lines = [
      '# Benchmarks',
      '',
      'Written by `npm run bench`, in one run on the built bundle. Ratios carry over to other machines, absolute times do not.',
      '',
      `Measured on ${date}: ${cores} cores, ${memory}, ${system}, Node ${node}.`,
    ];
    for (const { title, about, rows } of this.#sections) {
      lines.push('', `## ${title}`, '', about, '', '| | measured | | |', '|---|---|---|---|');
      for (const { name, value, note, verdict } of rows) lines.push(`| ${name} | ${value} | ${note} | ${verdict} |`);
    }
    return `${lines.join('\n')}\n`;
  }
}

export function milliseconds(value: number): string {
  return `${Math.round(value)} ms`;
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function times(ratio: number): string {
  return `${ratio.toFixed(2)}×`;
}
