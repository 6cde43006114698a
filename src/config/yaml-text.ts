import { dump, SCALAR_STYLE, visit } from 'js-yaml';
import type { JsonObject } from '../core/json.ts';

/**
 * Writes a mapping as YAML that readers of 1.1 and 1.2 read alike: `03:00` and `no` stand in quotes. More members can
 * be written below it.
 */
export function yamlText(value: JsonObject): string {
  return dump(value, {
    lineWidth: -1,
    noRefs: true,
    quoteStyle: 'double',
    transform: (documents) =>
      visit(documents, (node) => {
        // As a block text its empty lines would go on into what is written below.
        if (node.kind === 'scalar' && /(?:^|\n)\n$/.test(node.value)) node.style = SCALAR_STYLE.DOUBLE_QUOTED;
      }),
  });
}
