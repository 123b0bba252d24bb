// What the page of tests/outside/sse.py does: listens with the browser's own EventSource.
window.taken = ({ type, lastEventId, data }) => [type, lastEventId, data];

// The first `count` events; fewer when the time is over.
window.listen = (url, count, time) =>
  new Promise((resolve) => {
    const source = new EventSource(url);
    const got = [];
    const done = () => {
      source.close();
      resolve(got);
    };
    const take = (event) => {
      got.push(taken(event));
      if (got.length === count) done();
    };
    for (const type of ["Login", "Logout"]) source.addEventListener(type, take);
    setTimeout(done, time);
  });

// The first event of a type.
window.first = (url, type, time) =>
  new Promise((resolve, reject) => {
    const source = new EventSource(url);
    source.addEventListener(type, (event) => {
      source.close();
      resolve(taken(event));
    });
    setTimeout(() => reject(new Error(`no ${type} came`)), time);
  });
