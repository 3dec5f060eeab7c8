"""The chapter that compares the models: the same echo workload, served and generated in each."""

from __future__ import annotations

from echo_load.lab.comparison.clients import CLIENTS
from echo_load.lab.comparison.servers import SERVERS
from echo_load.lab.experiment import Chapter

CHAPTER = Chapter(
    name="comparison", title="The models side by side", experiments=(SERVERS, CLIENTS)
)
