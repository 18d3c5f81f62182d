// Steps that held and that did not.

const count = { passed: 0, failed: 0 };

export function expect(condition, message) {
    if (!condition) throw new Error(message);
}

export function expectSame(got, want) {
    expect(JSON.stringify(got) === JSON.stringify(want), `${JSON.stringify(got)} is not ${JSON.stringify(want)}`);
}

/** Does one step, prints a line, and counts it. */
export async function step(name, body) {
    try {
        await body();
    } catch (error) {
        console.log(`FAILED ${name}: ${error?.stack ?? error}`);
        count.failed += 1;
        return;
    }
    console.log(`ok ${name}`);
    count.passed += 1;
}

/** Prints how many held; whether all did. */
export function sum() {
    console.log(`${count.passed} passed, ${count.failed} failed`);
    return count.failed === 0;
}

export const failures = () => count.failed;
