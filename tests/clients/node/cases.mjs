// Runs named cases one after another and prints { name: result } as JSON; a case that throws gives { failed }.

export const local = process.env.LOCAL_URL;
export const standIn = process.env.STAND_IN_URL;

export async function run(cases) {
  const said = {};
  for (const [name, play] of Object.entries(cases)) {
    try {
      said[name] = await play();
    } catch (error) {
      said[name] = { failed: String(error?.stack ?? error) };
    }
  }
  console.log(JSON.stringify(said));
}

// What an error of a client says about itself.
export async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return { name: error.constructor.name, status: error.status, code: error.code, type: error.type, param: error.param };
  }
  return null;
}

// A PNG of one pixel.
export const pixel =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGN4zioNAALeAQhI/eXjAAAAAElFTkSuQmCC";

export const ask = (content) => [{ role: "user", content }];
