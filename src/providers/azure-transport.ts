import type { CosmosDBManagementClientOptionalParams } from '@azure/arm-cosmosdb';
import { HoldfastError } from '../core/errors.ts';
import type { Runtime } from '../core/runtime.ts';

/** What an Azure SDK sends its requests with. */
export type AzureHttpClient = NonNullable<CosmosDBManagementClientOptionalParams['httpClient']>;
type AzureRequest = Parameters<AzureHttpClient['sendRequest']>[0];
type AzureHeaders = Awaited<ReturnType<AzureHttpClient['sendRequest']>>['headers'];

export interface AzureTransportOptions {
  /**
   * Gives the address that a request really goes to.
   * @throws {HoldfastError} PROVIDER_UNAVAILABLE for a host that must not get it
   */
  readonly admit: (url: string) => string;
  /** Gives the Authorization header, where the requests carry ours. */
  readonly authorization?: () => Promise<string>;
  /** Whether a request that is no GET or HEAD changes nothing all the same. */
  readonly safe: (url: string, method: string) => boolean;
}

/** Makes the HTTP client of an Azure SDK: our fetch, one request for each that the SDK makes, no redirect followed. */
export function azureHttpClient(runtime: Pick<Runtime, 'fetch'>, options: AzureTransportOptions): AzureHttpClient {
  return {
    async sendRequest(request) {
      const url = options.admit(request.url);
      const headers = { ...request.headers.toJSON() };
      if (options.authorization !== undefined) headers['authorization'] = await options.authorization();
      const body = bodyOf(request);
      const signals = [
        ...(request.abortSignal === undefined ? [] : [request.abortSignal as AbortSignal]),
        ...(request.timeout > 0 ? [AbortSignal.timeout(request.timeout)] : []),
      ];
      const answer = await runtime.fetch(url, {
        method: request.method,
        headers,
        redirect: 'manual',
        ...(body === undefined ? {} : { body }),
        ...(signals.length === 0 ? {} : { signal: AbortSignal.any(signals) }),
        ...(options.safe(url, request.method) ? { safe: true } : {}),
      });
      return {
        request,
        status: answer.status,
        headers: new AnswerHeaders(answer.headers),
        bodyAsText: await answer.text(),
      };
    },
  };
}

function bodyOf(request: AzureRequest): string | undefined {
  const { body } = request;
  if (body === undefined || body === null) return undefined;
  if (typeof body === 'string') return body;
  throw new HoldfastError('INTERNAL', 'an Azure SDK made a request body of a kind that is not sent', {
    details: { outcome: 'not_sent' },
  });
}

/** The headers of an answer in the shape that the SDK reads. */
class AnswerHeaders implements AzureHeaders {
  readonly #headers: Headers;

  constructor(headers: Headers) {
    this.#headers = new Headers(headers);
  }

  get(name: string): string | undefined {
    return this.#headers.get(name) ?? undefined;
  }

  has(name: string): boolean {
    return this.#headers.has(name);
  }

  set(name: string, value: string | number | boolean): void {
    this.#headers.set(name, String(value));
  }

  delete(name: string): void {
    this.#headers.delete(name);
  }

  toJSON(): Record<string, string> {
    return Object.fromEntries(this.#headers);
  }

  [Symbol.iterator](): Iterator<[string, string]> {
    return this.#headers[Symbol.iterator]();
  }
}
