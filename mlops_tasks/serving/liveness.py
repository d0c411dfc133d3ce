"""Whether the scoring service is alive: by its only route that asks for no key."""

import httpx

from mlops_tasks.authorities import trusted_authorities
from mlops_tasks.config import Settings

LIMIT_S = 1.0


async def is_alive(settings: Settings) -> bool:
    """Whether it answers within `LIMIT_S`, model or not."""
    try:
        async with httpx.AsyncClient(timeout=LIMIT_S, verify=trusted_authorities()) as client:
            answer = await client.get(f"{settings.scoring_url}/live")
    except httpx.HTTPError:
        return False
    return answer.is_success
