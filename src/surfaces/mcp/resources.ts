import { type McpServer, ResourceNotFoundError, ResourceTemplate } from '@modelcontextprotocol/server';
import { HoldfastError } from '../../core/errors.ts';
import type { Principal } from '../../core/principal.ts';
import type { Engine } from '../../engine/api.ts';
import type { CallParts } from './call.ts';
import { inOurWords, matching, readerOf } from './prompts.ts';
import { RUNBOOK_LIST } from './runbook-list.ts';

const MARKDOWN = 'text/markdown';
const JSON_TYPE = 'application/json';
/** Lines of the audit trail that its resource shows. */
const AUDIT_LINES = 50;

const GUIDE = {
  title: 'Guide to a provider',
  description: 'How its backups behave, limits, permissions with the policy to paste, errors, exact calls',
  mimeType: MARKDOWN,
};
const RUNBOOK = {
  title: 'Runbook',
  description: 'What to do step by step, with the exact calls for the configured databases',
  mimeType: MARKDOWN,
};

/** Registers what can be read beside the tools. Every text is made when it is asked for. */
export function registerResources(server: McpServer, parts: CallParts, principal: Principal): void {
  const { engine } = parts;
  server.registerResource(
    'entities',
    'backup://entities',
    {
      title: 'Configured databases',
      description: 'Every database that the tools accept as entity',
      mimeType: JSON_TYPE,
    },
    (uri) => json(uri, entityRows(engine)),
  );
  if (principal.roles.includes('operator') || principal.roles.includes('approver')) {
    server.registerResource(
      'audit-recent',
      'backup://audit/recent',
      {
        title: 'Recent audit trail',
        description: `The last ${AUDIT_LINES} lines of the audit trail, newest first`,
        mimeType: JSON_TYPE,
      },
      (uri) => inOurWords(async () => json(uri, recentAudit(engine))),
    );
  }
  const ids = (): string[] => [...new Set(engine.entities().map(({ provider }) => provider))];
  server.registerResource(
    'guide',
    new ResourceTemplate('backup://guide/{provider}', {
      list: async () => ({ resources: await guideList(engine) }),
      complete: { provider: (typed) => matching(ids(), typed) },
    }),
    GUIDE,
    (uri, { provider: id }) =>
      inOurWords(async () => {
        const { providersOf, renderGuide } = await import('./guide.ts');
        const provider = providersOf(engine).find((candidate) => candidate.id === id);
        if (provider === undefined) throw new ResourceNotFoundError(uri.href);
        return markdown(uri, await renderGuide(parts, provider));
      }),
  );
  server.registerResource(
    'runbook',
    new ResourceTemplate('backup://runbook/{name}', {
      list: () => ({
        resources: RUNBOOK_LIST.map(({ name, title, description }) => ({
          uri: `backup://runbook/${name}`,
          name: `runbook-${name}`,
          title: `Runbook: ${title}`,
          description,
          mimeType: MARKDOWN,
        })),
      }),
      complete: {
        name: (typed) =>
          matching(
            RUNBOOK_LIST.map(({ name }) => name),
            typed,
          ),
      },
    }),
    RUNBOOK,
    (uri, { name }) =>
      inOurWords(async () => {
        const listed = RUNBOOK_LIST.find((candidate) => candidate.name === name);
        if (listed === undefined) throw new ResourceNotFoundError(uri.href);
        const { renderRunbook } = await import('./runbooks.ts');
        return markdown(uri, renderRunbook(readerOf(parts, principal), listed.name, listed.title, {}));
      }),
  );
}

type Contents = { contents: { uri: string; mimeType: string; text: string }[] };

function json(uri: URL, value: unknown): Contents {
  return { contents: [{ uri: uri.href, mimeType: JSON_TYPE, text: JSON.stringify(value, undefined, 1) }] };
}

function markdown(uri: URL, text: string): Contents {
  return { contents: [{ uri: uri.href, mimeType: MARKDOWN, text }] };
}

async function guideList(engine: Engine): Promise<{ uri: string; name: string; title: string; mimeType: string }[]> {
  const { providersOf } = await import('./guide.ts');
  return providersOf(engine).map(({ id, title }) => ({
    uri: `backup://guide/${id}`,
    name: `guide-${id}`,
    title: `Guide: ${title}`,
    description: GUIDE.description,
    mimeType: MARKDOWN,
  }));
}

function entityRows(engine: Engine): object[] {
  return engine.entities().map(({ key, defines, provider, labels, objectives, schedules }) => ({
    entity: key,
    defines,
    guide: `backup://guide/${provider}`,
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    // Seconds, as the tools give them.
    ...(Object.keys(objectives).length === 0 ? {} : { objectives_seconds: objectives }),
    ...(schedules === undefined ? {} : { schedules }),
  }));
}

function recentAudit(engine: Engine): object[] {
  try {
    return engine.recentAudit(AUDIT_LINES);
  } catch (cause) {
    throw new HoldfastError('AUDIT_UNAVAILABLE', 'the audit trail cannot be read', {
      hint: 'holdfast audit verify shows where it is broken.',
      cause,
    });
  }
}
