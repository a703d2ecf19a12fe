"""The process around the application: listening, signals and the drain, and the limits of a connection.

It relies on uvicorn's internals, which may change with any minor release, so ``pyproject.toml`` allows only the one
it was written for. Compare this list with the source before you allow another. What is used, class by class:

* ``Config``: ``load``, ``lifespan_class``, ``get_loop_factory``
* ``Server``: ``serve``, ``startup``, ``main_loop``, ``on_tick``, ``capture_signals``, ``lifespan``, ``servers``,
  ``started``, ``should_exit``, ``server_state``; a start that fails calls sys.exit
* ``ServerState``: ``tasks``, ``connections``, ``total_requests``, ``default_headers``
* ``HttpToolsProtocol``: ``connection_made``, ``connection_lost``, ``data_received``, ``shutdown``,
  ``on_message_begin``, ``on_header``, ``on_headers_complete``, ``on_body``, ``on_message_complete``,
  ``on_response_complete``, ``_start_asgi_task``, ``_unset_keepalive_if_required``, ``parser``, ``headers``, ``url``,
  ``cycle``, ``flow``, ``loop``, ``transport``; ``parser`` may be replaced, and the new one is used from then on
* ``RequestResponseCycle``: ``send``, ``receive``, ``scope``, ``transport``, ``more_body``, ``message_event``,
  ``disconnected``, ``keep_alive``, ``response_started``, ``response_complete``
* ``FlowControl``: ``resume_reading``
"""
