// What is no HTTP request, too much of one, or one that does not end: answered in OpenAI's form where that is possible.
import type { Socket } from 'node:net';
import { ApiError } from './api-error';

const known: Readonly<Record<string, ApiError>> = {
  ERR_HTTP_REQUEST_TIMEOUT: new ApiError(408, 'request_timeout', 'the request did not come in time'),
  HPE_HEADER_OVERFLOW: new ApiError(431, 'headers_too_large', 'the headers of the request are too large'),
};
const unreadable = new ApiError(400, 'malformed_request', 'this is no HTTP request');
const reasons: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};

/** Answers and closes a connection whose request node cannot read; where answers went out before, one may not have ended. */
export function answerMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable || socket.bytesWritten > 0) {
    socket.destroy();
    return;
  }
  const { status, body } = known[error.code ?? ''] ?? unreadable;
  const text = JSON.stringify(body);
  const head = `content-type: application/json; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(text)}`;
  socket.end(`HTTP/1.1 ${status} ${reasons[status]}\r\n${head}\r\nconnection: close\r\n\r\n${text}`);
  socket.destroySoon(); // though the client keeps its end open
}
