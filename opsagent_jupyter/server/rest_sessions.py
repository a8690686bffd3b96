"""REST: conversations and what is said in them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from opsagent_jupyter.errors import SessionClosed, UnknownInstance, UnknownSession
from opsagent_jupyter.models import Message, Session
from opsagent_jupyter.server.bodies import Begun, NewSession, Words
from opsagent_jupyter.server.paging import Page, Paging, number_of, page_of, place_of
from opsagent_jupyter.server.routes import Asked, Nothing, Routes
from opsagent_jupyter.session import TurnRecord

routes = Routes()


@routes.get("sessions")
async def list_sessions(asked: Asked[Paging, Nothing]) -> Page[Session]:
    """The conversations, the last used first."""
    query = asked.query
    after = place_of(query.cursor)
    found = await asyncio.to_thread(asked.runtime.store.sessions, limit=query.limit + 1, after=after)
    return page_of(found, query.limit, "updated_at", "id")


@routes.post("sessions", UnknownInstance, status=HTTPStatus.CREATED)
async def open_session(asked: Asked[Nothing, NewSession]) -> Session:
    """Begin a conversation."""
    return await asked.runtime.new_session(asked.actor, asked.body.instance, asked.body.model)


@routes.get("sessions/{id}", UnknownSession)
async def get_session(asked: Asked[Nothing, Nothing]) -> Session:
    """A conversation by id."""
    return await asyncio.to_thread(asked.runtime.store.session, asked.path["id"])


@routes.post("sessions/{id}/close", UnknownSession)
async def close_session(asked: Asked[Nothing, Nothing]) -> Session:
    """Close a conversation; it stays readable."""
    store = asked.runtime.store
    session = await asyncio.to_thread(store.session, asked.path["id"])
    if session.closed:
        return session
    event = asked.runtime.event("session.closed", asked.actor, session=session.id)
    return await asyncio.to_thread(store.update_session, session.id, event, closed=True)


@routes.get("sessions/{id}/messages", UnknownSession)
async def list_messages(asked: Asked[Paging, Nothing]) -> Page[Message]:
    """What was said in a conversation, newest first."""
    store, query = asked.runtime.store, asked.query
    session = await asyncio.to_thread(store.session, asked.path["id"])
    before = number_of(query.cursor)
    found = await asyncio.to_thread(store.messages_before, session.id, before, query.limit + 1)
    return page_of(found, query.limit, "seq")


@routes.post("sessions/{id}/messages", UnknownSession, SessionClosed, status=HTTPStatus.ACCEPTED)
async def say(asked: Asked[Nothing, Words]) -> Begun:
    """Say something to the agent. The turn runs on; its events are on the WebSocket, its messages in the conversation."""
    runtime, body = asked.runtime, asked.body
    session = await asyncio.to_thread(runtime.store.session, asked.path["id"])
    if session.closed:
        raise SessionClosed
    turn = TurnRecord(session.id)
    await runtime.keep(runtime.say(session.id, body.text, asked.actor, turn, body.model))
    return Begun(session=session.id, turn=turn.id)
